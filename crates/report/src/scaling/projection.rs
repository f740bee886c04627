//! Projections: what a [`ScalingModel`] says of machines that nobody has measured.
//!
//! The collective goes over links whose figures are assumed. Of R ranks, G in each node, a rank sends 2 (G - 1) messages within its node
//! and 2 (R - G) to others, each of `bytes / R`; the ranks of a node share its link to the others. At the slow end no two
//! messages overlap, at the fast end all of a phase do. Copies and sums cost per byte what was measured.

use super::link::Link;
use super::model::ScalingModel;
use serde::{Deserialize, Serialize};

/// Nodes and the devices of each: GPUs, or ranks on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {
    /// Nodes.
    pub nodes: usize,
    /// Devices in each.
    pub devices_per_node: usize,
}

impl Machines {
    /// Ranks, one for each device.
    pub fn ranks(&self) -> usize {
        self.nodes * self.devices_per_node
    }

    /// In words: `8 GPUs`, `16 nodes of 2 ranks`.
    pub fn in_words(&self, is_gpu: bool) -> String {
        let what = match (is_gpu, self.devices_per_node) {
            (true, 1) => "1 GPU".to_owned(),
            (true, n) => format!("{n} GPUs"),
            (false, 1) => "1 rank".to_owned(),
            (false, n) => format!("{n} ranks"),
        };
        match self.nodes {
            1 => what,
            n => format!("{n} nodes of {what}"),
        }
    }
}

/// A figure, and between which it may lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// Lower end.
    pub low: f64,
    /// The figure.
    pub value: f64,
    /// Upper end.
    pub high: f64,
}

impl Range {
    /// An interval's figures, seen from the other side: speeds of times.
    pub(crate) fn inverse(&self, of: f64) -> Range {
        Range {
            low: of / self.high,
            value: of / self.value,
            high: of / self.low,
        }
    }
}

/// A projected speed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Projection {
    /// The model's configuration.
    pub configuration: String,
    /// The model's communicator.
    pub communicator: String,
    /// Products of the panel.
    pub products: usize,
    /// Rows of the panel.
    pub rows: usize,
    /// Nodes and devices.
    pub machines: Machines,
    /// The same in words.
    pub place: String,
    /// Name of the link within a node.
    pub within: String,
    /// Name of the link between nodes; `none` where there is one.
    pub between: String,
    /// Seconds of an iteration. The figure has no overlap of messages.
    pub seconds: Range,
    /// Seconds of the collective among them.
    pub collective: Range,
    /// Times as fast as the model's one device.
    pub speedup: Range,
    /// Whether a device would have fewer or more rows than any that was measured.
    pub is_extrapolated: bool,
}

impl Projection {
    /// Speedup per device.
    pub fn efficiency(&self) -> f64 {
        self.speedup.value / self.machines.ranks() as f64
    }
}

/// Seconds of an all-reduce of `bytes` among `machines`, as its fast and its slow end; 0 for one rank. `seconds_per_byte` is that of copies and
/// sums.
///
/// # Panics
/// When there are several nodes and no link `between` them.
pub fn collective_seconds(
    machines: Machines,
    within: &Link,
    between: Option<&Link>,
    bytes: f64,
    seconds_per_byte: f64,
) -> [f64; 2] {
    let (ranks, in_node) = (machines.ranks() as f64, machines.devices_per_node as f64);
    if machines.ranks() < 2 {
        return [0.0; 2];
    }
    let part = bytes / ranks;
    // Of one phase: messages of a rank, and bytes over a link.
    let near = in_node - 1.0;
    let mut links = vec![(within, near, near * part)];
    if machines.nodes > 1 {
        let between = between.expect("a link between nodes");
        let far = ranks - in_node;
        links.push((between, far, in_node * far * part));
    }
    links.retain(|(_, messages, _)| *messages > 0.0);
    let start: f64 = links.iter().map(|(link, ..)| link.operation_seconds).sum();
    let most = |of: &dyn Fn(&(&Link, f64, f64)) -> f64| links.iter().map(of).fold(0.0, f64::max);
    let sending = |(link, _, bytes): &(&Link, f64, f64)| bytes / link.bytes_per_second;
    let overlapped = most(&|(link, ..)| link.message_seconds) + most(&sending);
    let in_turn: f64 = links
        .iter()
        .map(|of| of.1 * of.0.message_seconds + sending(of))
        .sum();
    [overlapped, in_turn].map(|phase| start + 2.0 * phase + bytes * seconds_per_byte)
}

/// What a model says of a panel of `rows` on `machines`.
///
/// # Panics
/// As [`collective_seconds`].
pub fn project(
    model: &ScalingModel,
    (products, rows): (usize, usize),
    machines: Machines,
    within: &Link,
    between: Option<&Link>,
) -> Projection {
    let ranks = machines.ranks();
    let own = (rows as f64 / ranks as f64).ceil();
    let [fast, slow] = collective_seconds(
        machines,
        within,
        between,
        model.bytes,
        model.collective.seconds_per_byte,
    );
    let compute = model.compute.seconds(own, ranks);
    let error = model.error();
    let seconds = Range {
        low: compute * (1.0 - error).max(0.0) + fast,
        value: compute + slow,
        high: compute * (1.0 + error) + slow,
    };
    let [fewest, most] = model.rows;
    Projection {
        configuration: model.configuration.clone(),
        communicator: model.communicator.clone(),
        products,
        rows,
        machines,
        place: machines.in_words(model.is_gpu),
        within: within.name.clone(),
        between: between.map_or_else(|| "none".to_owned(), |link| link.name.clone()),
        speedup: seconds.inverse(model.compute.seconds(rows as f64, 1)),
        collective: Range {
            low: fast,
            value: slow,
            high: slow,
        },
        seconds,
        is_extrapolated: own < fewest as f64 || own > most as f64,
    }
}

/// Which machines are projected, over which links.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectionPlan {
    /// Panels: products and rows.
    pub panels: Vec<(usize, usize)>,
    /// Numbers of GPUs in one node.
    pub gpus: Vec<usize>,
    /// Numbers of nodes.
    pub nodes: Vec<usize>,
    /// GPUs of a node, where there are several nodes.
    pub gpus_per_node: usize,
    /// Links between the GPUs of a node; the first where there are several nodes.
    pub within: Vec<Link>,
    /// Links between nodes.
    pub between: Vec<Link>,
}

impl ProjectionPlan {
    /// What a model says. A model of the CPU says nothing of GPUs, nor of more ranks in a node than were measured: its nodes are as the
    /// machine that was measured.
    pub fn of(&self, model: &ScalingModel) -> Vec<Projection> {
        let measured = Link {
            name: format!("{}, as measured", model.communicator),
            operation_seconds: model.collective.operation_seconds,
            message_seconds: model.collective.message_seconds,
            // What a byte costs is in the sums.
            bytes_per_second: f64::INFINITY,
            source: "timed all-reduces".to_owned(),
        };
        let mut found = Vec::new();
        for panel in &self.panels {
            if model.is_gpu {
                for gpus in &self.gpus {
                    let machines = Machines {
                        nodes: 1,
                        devices_per_node: *gpus,
                    };
                    found.extend(
                        self.within
                            .iter()
                            .map(|link| project(model, *panel, machines, link, None)),
                    );
                }
            }
            let (within, devices_per_node) = match model.is_gpu {
                true => (self.within.first(), self.gpus_per_node),
                false => (Some(&measured), model.most_ranks),
            };
            let Some(within) = within else { continue };
            for nodes in &self.nodes {
                let machines = Machines {
                    nodes: *nodes,
                    devices_per_node,
                };
                for link in &self.between {
                    found.push(project(model, *panel, machines, within, Some(link)));
                }
            }
        }
        found
    }
}
