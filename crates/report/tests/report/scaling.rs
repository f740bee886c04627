//! Scaling: series, the table, the model that is fitted on timings with known coefficients, and projections.

use crate::pictures::check;
use crate::scaling_timings::{BYTES, CPU, GPU, Truth, on_cpu, on_gpus};
use infermark_report::plots::scaling as plots;
use infermark_report::records::case_record::Status;
use infermark_report::records::projection_record::ProjectionRecord;
use infermark_report::records::results_folder::ResultsFolder;
use infermark_report::records::scaling_record::{CollectiveRecord, ScalingRecord};
use infermark_report::redraw::{draw_projection, draw_scaling, redraw_scaling};
use infermark_report::scaling::link::Link;
use infermark_report::scaling::model::{ScalingModel, fit};
use infermark_report::scaling::projection::{Machines, ProjectionPlan, collective_seconds, project};
use infermark_report::scaling::series::{strong, weak};
use infermark_report::scaling_csv::{SCALING_COLUMNS, write_scaling_csv};
use infermark_report::table::projection::projection_table;
use infermark_report::table::scaling::scaling_table;
use std::path::Path;

fn model(records: &[ScalingRecord], collectives: &[CollectiveRecord]) -> ScalingModel {
    let mut fitted = fit(records, collectives);
    assert_eq!(fitted.len(), 1);
    fitted.pop().unwrap().unwrap()
}

fn near(found: f64, truth: f64, tolerance: f64) {
    assert!((found / truth - 1.0).abs() < tolerance, "{found:e} of {truth:e}");
}

#[test]
fn the_table_of_scaling_is_the_one_on_file() {
    insta::assert_snapshot!("scaling", scaling_table(&on_cpu(), &CPU.collectives(&[2, 4])));
}

#[test]
fn the_projection_is_the_one_on_file() {
    let record = projection(&on_cpu(), &CPU.collectives(&[2]));
    insta::assert_snapshot!("projection", projection_table(&record));
}

fn plan() -> ProjectionPlan {
    let links = |names: [&str; 2]| names.map(|name| Link::named(name).unwrap()).to_vec();
    ProjectionPlan {
        panels: vec![(10_000, 1_560_000), (100_000, 15_600_000)],
        gpus: vec![2, 4, 8],
        nodes: vec![2, 4, 16],
        gpus_per_node: 8,
        within: links(["nvlink", "pcie"]),
        between: links(["infiniband-200", "ethernet-25"]),
    }
}

fn projection(records: &[ScalingRecord], collectives: &[CollectiveRecord]) -> ProjectionRecord {
    ProjectionRecord::new(fit(records, collectives), &plan(), "2026-11-28T13:00:00Z".into())
}

#[test]
fn series_hold_ranks_and_no_logical_shards() {
    let records = on_cpu();
    let strong = strong(&records);
    assert_eq!(strong.len(), 3);
    for series in &strong {
        let ranks: Vec<usize> = series.points.iter().map(|p| p.ranks()).collect();
        assert_eq!(ranks, [1, 2], "four ranks on two cores are no ranks");
        let [one, two] = [1, 2].map(|ranks| CPU.seconds(series.base.panel.rows, ranks, 1));
        near(series.points[1].speedup.median, one / two, 1e-9);
        near(series.points[1].efficiency(), one / two / 2.0, 1e-9);
    }
    let weak = weak(&records);
    assert_eq!(weak.len(), 1);
    let two = weak[0].points[1];
    assert_eq!(two.record.panel.products, 2_000);
    near(
        two.efficiency(),
        CPU.seconds(156_000, 1, 1) / CPU.seconds(312_000, 2, 1),
        1e-9,
    );
    // Another configuration is another line, and a failed point is in none.
    let mut other = on_cpu();
    other[1].placement.threads_per_rank = 2;
    other[4].status = Status::Failed;
    assert_eq!(infermark_report::scaling::series::strong(&other).len(), 1);
    // A disturbance of both in one turn falls out of their ratio.
    let mut disturbed = on_cpu();
    for at in [3, 4] {
        disturbed[at].repeats[1].seconds *= 3.0;
    }
    let speedup = infermark_report::scaling::series::strong(&disturbed)[1].points[1].speedup;
    assert!(speedup.ratio() < 1.0 + 1e-9, "{speedup:?}");
}

#[test]
fn logical_shards_stand_in_no_column_of_gpus() {
    let records = on_gpus(&[(10_000, 1, 1), (10_000, 4, 1)]);
    let text = scaling_table(&records, &[]);
    let line = |words: &str| {
        text.lines()
            .find(|l| l.contains(words))
            .unwrap_or_else(|| panic!("{words} in {text}"))
    };
    let logical = line("4 logical shards on 1 GPU");
    assert_eq!(logical.matches("not applicable").count(), 4, "{logical}");
    assert!(line("several GPUs").contains("not measured"));
    assert!(!text.contains("4 GPUs"));
    let cpu = scaling_table(&on_cpu(), &[]);
    let missing =
        |line: &&str| line.starts_with("| ") && line.contains("GPU") && line.contains("not measured");
    assert_eq!(cpu.lines().filter(missing).count(), 2, "{cpu}");
    assert!(cpu.contains("4 logical shards on 2 cores"));
    // What software plays is no GPU.
    let mut played = on_gpus(&[(10_000, 1, 1)]);
    played[0].placement.software = true;
    let text = scaling_table(&played, &[]);
    assert!(
        text.contains("1 software device")
            && text
                .lines()
                .any(|l| l.contains("1 GPU") && l.contains("not measured"))
    );
}

#[test]
fn points_are_read_back_as_they_were_and_drawn_alike() {
    let base = tempfile::tempdir().unwrap();
    let folder = ResultsFolder::create(&base.path().join("r")).unwrap();
    let (records, collectives) = (on_cpu(), CPU.collectives(&[2]));
    // In another order: their sequence counts.
    for record in records.iter().rev() {
        folder.write_scaling(record).unwrap();
    }
    for record in collectives.iter().rev() {
        folder.write_collective(record).unwrap();
    }
    assert!(folder.has_scaling() && !folder.has_cases());
    assert!(folder.read_scaling().unwrap() == records);
    assert!(folder.read_collectives().unwrap() == collectives);
    let drawn = draw_scaling(&folder, &records, &collectives).unwrap();
    let again = redraw_scaling(folder.path()).unwrap();
    assert_eq!((&drawn.table, &drawn.plots), (&again.table, &again.plots));
    let record = projection(&records, &collectives);
    let own = ResultsFolder::create(&base.path().join("p")).unwrap();
    draw_projection(&own, &record).unwrap();
    let text = std::fs::read_to_string(own.path().join("projection.json")).unwrap();
    assert!(serde_json::from_str::<ProjectionRecord>(&text).unwrap() == record);
    // The two are apart: none of one's files is in the other's folder.
    assert!(!own.path().join("scaling.md").exists() && !folder.path().join("projection.md").exists());
    assert!(!drawn.table.to_lowercase().contains("projected"));
    let empty = ResultsFolder::existing(base.path());
    assert!(
        empty
            .read_scaling()
            .unwrap_err()
            .to_string()
            .contains("holds no results")
    );
}

#[test]
fn the_flat_table_of_scaling_has_no_blank() {
    let mut bytes = Vec::new();
    write_scaling_csv(&mut bytes, &on_cpu()).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    assert_eq!(reader.headers().unwrap(), SCALING_COLUMNS.as_slice());
    let rows: Vec<std::collections::HashMap<String, String>> =
        reader.deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row.values().all(|cell| !cell.is_empty())));
    let number = |row: usize, column: &str| rows[row][column].parse::<f64>().unwrap();
    near(
        number(4, "strong_efficiency"),
        CPU.seconds(1_560_000, 1, 1) / CPU.seconds(1_560_000, 2, 1) / 2.0,
        1e-9,
    );
    assert_eq!(number(4, "bytes_per_iteration"), BYTES);
    near(
        number(4, "communication_seconds_per_iteration"),
        CPU.collective(2, BYTES),
        1e-9,
    );
    assert_eq!(rows[5]["strong_efficiency"], "not applicable");
    assert_eq!(rows[3]["communication_seconds_per_iteration"], "not applicable");
    assert_eq!(rows[3]["weak_efficiency"], "not measured");
}

#[test]
fn known_coefficients_are_recovered() {
    // On 2 ranks alone an operation and its messages cannot be told apart: together they are right.
    let found = model(&on_cpu(), &CPU.collectives(&[2, 4]));
    near(found.compute.seconds_per_row, CPU.compute.seconds_per_row, 1e-6);
    near(
        found.compute.hierarchy_seconds,
        CPU.compute.hierarchy_seconds,
        1e-6,
    );
    near(found.compute.fold_seconds, CPU.compute.fold_seconds, 1e-6);
    near(found.collective.seconds(2, BYTES), CPU.collective(2, BYTES), 1e-6);
    near(found.collective.seconds_per_byte, CPU.byte, 1e-6);
    assert_eq!(
        (found.collective.ranks.as_slice(), found.most_ranks),
        ([2].as_slice(), 2)
    );
    assert!(found.error() < 1e-6 && found.collective.largest_error < 1e-6);
    assert!(found.points.iter().all(|p| p.error().unwrap().abs() < 1e-6));
    assert_eq!(found.points.len(), 7, "without the logical shards");
    // With more ranks of their own they can.
    let wide = Truth { cores: 8, ..CPU };
    let mut records = on_cpu();
    records.push(wide.point(8, 10_000, 8, 1));
    let found = model(&records, &wide.collectives(&[2, 4, 8]));
    near(found.collective.operation_seconds, CPU.operation, 1e-6);
    near(found.collective.message_seconds, CPU.message, 1e-6);
    near(found.compute.fold_seconds, CPU.compute.fold_seconds, 1e-6);
    // On a card, whose logical shards follow each other, and on four.
    for points in [
        [
            (10_000, 1, 1),
            (100_000, 1, 1),
            (1_000_000, 1, 1),
            (100_000, 2, 1),
        ],
        [
            (10_000, 1, 1),
            (100_000, 1, 1),
            (1_000_000, 1, 1),
            (100_000, 4, 4),
        ],
    ] {
        let found = model(&on_gpus(&points), &GPU.collectives(&[2, 4]));
        near(found.compute.seconds_per_row, GPU.compute.seconds_per_row, 1e-6);
        near(
            found.compute.hierarchy_seconds,
            GPU.compute.hierarchy_seconds,
            1e-6,
        );
        near(found.compute.fold_seconds, GPU.compute.fold_seconds, 1e-6);
        assert!(found.is_gpu);
    }
}

#[test]
fn an_error_of_a_point_widens_the_projection() {
    let mut records = on_cpu();
    for repeat in &mut records[4].repeats {
        repeat.seconds *= 1.1;
    }
    let found = model(&records, &CPU.collectives(&[2]));
    let of_point = found.points[4].error().unwrap();
    assert!((-0.12..-0.05).contains(&of_point), "{of_point}");
    assert!(found.error() >= -of_point);
    let machines = Machines {
        nodes: 2,
        devices_per_node: 2,
    };
    let link = Link::named("infiniband-200").unwrap();
    let projected = project(&found, (10_000, 1_560_000), machines, &link, Some(&link));
    let compute = found.compute.seconds(390_000.0, 4);
    near(
        projected.seconds.high - projected.seconds.value,
        found.error() * compute,
        1e-9,
    );
    assert!(
        projected.speedup.low < projected.speedup.value && projected.speedup.value < projected.speedup.high
    );
}

#[test]
fn what_was_not_measured_is_not_projected() {
    let reason = |records: &[ScalingRecord], collectives: &[CollectiveRecord]| {
        let mut fitted = fit(records, collectives);
        fitted.remove(0).unwrap_err().to_string()
    };
    let records = on_cpu();
    let of = |keep: &dyn Fn(&ScalingRecord) -> bool| -> Vec<ScalingRecord> {
        records.iter().filter(|r| keep(r)).cloned().collect()
    };
    let collectives = CPU.collectives(&[2, 4]);
    let one_rank = of(&|r| r.placement.ranks == 1);
    assert!(reason(&one_rank, &collectives).contains("nothing was measured on several ranks"));
    // Logical shards of the CPU say nothing of ranks.
    let logical = of(&|r| r.placement.ranks == 1 || r.placement.logical);
    assert!(reason(&logical, &collectives).contains("nothing was measured on several ranks"));
    assert!(reason(&records, &[]).contains("no all-reduces"));
    assert!(reason(&records, &CPU.collectives(&[4])).contains("no all-reduces"));
    let few = of(&|r| r.panel.products == 10_000 || (r.panel.products == 100_000 && r.placement.ranks == 1));
    assert!(reason(&few, &collectives).contains("fewer than four points"));
    let mut one_size = of(&|r| r.panel.products == 10_000 && !r.placement.logical);
    one_size.extend(one_size.clone());
    assert!(reason(&one_size, &collectives).contains("do not tell time per row from fixed time"));
    let failed: Vec<ScalingRecord> = records
        .iter()
        .cloned()
        .map(|r| ScalingRecord {
            status: Status::Failed,
            ..r
        })
        .collect();
    assert!(fit(&failed, &collectives).is_empty());

    // The CPU's figures say nothing of GPUs, and what software plays says nothing of cards.
    let record = projection(&records, &collectives);
    assert!(record.projections.iter().all(|p| !p.place.contains("GPU")));
    assert!(
        record
            .not_projected
            .iter()
            .any(|why| why.contains("no GPU was measured"))
    );
    assert!(record.links.iter().all(|link| link.name != "nvlink"));
    let card = on_gpus(&[
        (10_000, 1, 1),
        (100_000, 1, 1),
        (1_000_000, 1, 1),
        (100_000, 2, 1),
    ]);
    let played: Vec<ScalingRecord> = card
        .iter()
        .cloned()
        .map(|mut r| {
            r.placement.software = true;
            r
        })
        .collect();
    assert!(fit(&played, &GPU.collectives(&[2])).is_empty());
    let record = projection(&card, &GPU.collectives(&[2]));
    assert!(record.not_projected.is_empty());
    let place = |words: &str| record.projections.iter().filter(|p| p.place == words).count();
    // Two sizes, over two links within a node, and over two between nodes.
    assert_eq!(
        [place("2 GPUs"), place("8 GPUs"), place("16 nodes of 8 GPUs")],
        [4, 4, 4]
    );
    assert!(
        record
            .assumptions()
            .iter()
            .any(|line| line.contains("logical shards of one"))
    );
    // Rows beyond those measured are marked.
    let far = |p: &&infermark_report::scaling::projection::Projection| p.is_extrapolated;
    assert!(
        record
            .projections
            .iter()
            .filter(far)
            .all(|p| p.rows / p.machines.ranks() < 1_560_000)
    );
    assert!(
        record.projections.iter().any(|p| p.is_extrapolated)
            && record.projections.iter().any(|p| !p.is_extrapolated)
    );
}

#[test]
fn predictions_keep_to_their_limits() {
    let mut free = model(&on_cpu(), &CPU.collectives(&[2]));
    free.compute.hierarchy_seconds = 0.0;
    free.compute.fold_seconds = 0.0;
    free.collective.seconds_per_byte = 0.0;
    let link = |seconds: f64, bytes: f64| Link {
        message_seconds: seconds,
        bytes_per_second: bytes,
        operation_seconds: 0.0,
        ..Link::named("nvlink").unwrap()
    };
    let on = |nodes, devices_per_node| Machines {
        nodes,
        devices_per_node,
    };
    let panel = (100_000, 16_000_000);
    // Without communication and fixed work as many ranks are as many times as fast.
    let ideal = link(0.0, f64::INFINITY);
    for (nodes, devices) in [(1, 2), (1, 8), (2, 8), (16, 8)] {
        let projected = project(&free, panel, on(nodes, devices), &ideal, Some(&ideal));
        near(projected.speedup.value, (nodes * devices) as f64, 1e-9);
        near(projected.efficiency(), 1.0, 1e-9);
    }
    // Nothing is gained over an infinitely slow link, and one device needs none.
    let slow = link(1e9, 1.0);
    assert!(project(&free, panel, on(2, 1), &ideal, Some(&slow)).speedup.high < 1e-9);
    assert_eq!(collective_seconds(on(1, 1), &slow, None, BYTES, 1.0), [0.0; 2]);
    // With work that every rank does alike the speedup has a bound: Amdahl's.
    let mut bound = free.clone();
    bound.compute.hierarchy_seconds = 1e-3;
    let at = |nodes| {
        project(&bound, panel, on(nodes, 8), &ideal, Some(&ideal))
            .speedup
            .value
    };
    let most = bound.compute.seconds(16e6, 1) / 1e-3;
    assert!(at(16) < most && at(100_000) < most && at(100_000) > 0.99 * most);
    // By hand: 2 nodes of 4, 8 ranks, 80 kB: parts of 10 kB. In a phase 3 messages within the node and 4 to the other, over whose link 4 ranks
    // send 40 kB each.
    let (near_by, far) = (link(1e-6, 1e10), link(3e-6, 1e9));
    let [fast, slow] = collective_seconds(on(2, 4), &near_by, Some(&far), 80_000.0, 1e-10);
    near(slow, 2.0 * (3.0 * 1e-6 + 3e-6 + 4.0 * 3e-6 + 160e-6) + 8e-6, 1e-9);
    near(fast, 2.0 * (3e-6 + 160e-6) + 8e-6, 1e-9);
    // Better links are never slower, more bytes never faster.
    let seconds = |latency, bandwidth, bytes| {
        collective_seconds(on(4, 8), &near_by, Some(&link(latency, bandwidth)), bytes, 1e-10)
    };
    for end in 0..2 {
        assert!(seconds(1e-6, 1e10, BYTES)[end] <= seconds(2e-6, 1e10, BYTES)[end]);
        assert!(seconds(1e-6, 2e10, BYTES)[end] <= seconds(1e-6, 1e10, BYTES)[end]);
        assert!(seconds(1e-6, 1e10, BYTES)[end] < seconds(1e-6, 1e10, 2.0 * BYTES)[end]);
    }
}

#[test]
fn the_pictures_of_scaling() {
    let folder = Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/pictures/scaling"));
    let mut records = on_cpu();
    let wide = Truth { cores: 8, ..CPU };
    for (products, ranks) in [
        (10_000, 4),
        (10_000, 8),
        (100_000, 4),
        (100_000, 8),
        (4_000, 4),
        (8_000, 8),
    ] {
        records.push(wide.point(records.len(), products, ranks, 1));
    }
    records.remove(5);
    let files = plots::draw(folder, &records).unwrap();
    check(&files);
    let names: Vec<&str> = files
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "strong_scaling.svg",
            "strong_scaling.png",
            "weak_scaling.svg",
            "weak_scaling.png"
        ]
    );
    // The ideal line is drawn, and labelled.
    for name in ["strong_scaling.svg", "weak_scaling.svg"] {
        assert!(
            std::fs::read_to_string(folder.join(name))
                .unwrap()
                .contains("ideal")
        );
    }
    let card = on_gpus(&[
        (10_000, 1, 1),
        (100_000, 1, 1),
        (1_000_000, 1, 1),
        (100_000, 2, 1),
    ]);
    let files = plots::draw_projection(folder, &projection(&card, &GPU.collectives(&[2]))).unwrap();
    check(&files);
    let text = std::fs::read_to_string(folder.join("projected_scaling.svg")).unwrap();
    assert!(text.contains("Projection, not measured"));
    // Two points on one machine, as on a small one, and nothing where nothing was measured on several.
    let two = plots::draw(&folder.join("two"), &on_cpu()).unwrap();
    check(&two);
    let one: Vec<ScalingRecord> = on_cpu().into_iter().filter(|r| r.placement.ranks == 1).collect();
    assert!(plots::draw(folder, &one).unwrap().is_empty());
}
