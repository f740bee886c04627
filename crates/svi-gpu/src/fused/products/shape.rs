//! The compile-time parameters of the launch: the columns of the products' constants, the sums that a cube
//! leaves, the shape, and the priors' values.

use cubecl::prelude::*;

/// The deviation that marks an absent row; anything beyond [`PRESENT`] does.
pub(in crate::fused) const ABSENT: f32 = 3.0e38;
pub(super) const PRESENT: f32 = 1.0e38;

/// Columns of the products' constants, each of length N; in orthogonal coordinates there is [`ORIGIN`] besides, and means are measured from it.
pub(in crate::fused) const CONSTANT_COLUMNS: usize = 8;
pub(super) const MEAN_HI: usize = 0;
pub(super) const MEAN_LO: usize = 1;
pub(super) const UNITS_HI: usize = 2;
pub(super) const UNITS_LO: usize = 3;
pub(super) const DEVIATION_HI: usize = 4;
pub(super) const DEVIATION_LO: usize = 5;
pub(super) const LOWEST: usize = 6;
pub(super) const HIGHEST: usize = 7;
pub(super) const ORIGIN: usize = CONSTANT_COLUMNS;

/// Sums that a cube leaves for each particle: log-weight (high, low), derivative with respect to the
/// category's elasticity, derivatives with respect to the two sites' centredness. In orthogonal coordinates,
/// where none is learned, the last is the derivative with respect to the prior mean of the effects.
pub(in crate::fused) const CUBE_SUMS: usize = 5;

/// Sums that a lane leaves of a product and particle: rates, rates times deviation, and the gradient's rates, which are
/// the rates themselves unless the product has clipped rows.
pub(super) const LANE_SUMS: usize = 3;

/// The parameters of a launch that are fixed when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::fused) struct Shape {
    /// K.
    pub(in crate::fused) particles: usize,
    /// Vectors of four periods that a thread owns.
    pub(in crate::fused) tiles: usize,
    /// Threads along the periods.
    pub(in crate::fused) lanes: usize,
    /// Threads along the products.
    pub(in crate::fused) groups: usize,
    /// Products that are prepared at a time; at most `lanes * groups`.
    pub(in crate::fused) chunk: usize,
    /// Products that a group takes before the lanes' sums are added.
    pub(in crate::fused) depth: usize,
    /// Whether rows can be absent.
    pub(in crate::fused) gaps: bool,
    /// Whether the centredness is learned.
    pub(in crate::fused) learned: bool,
    /// Whether the coordinates are the orthogonal ones.
    pub(in crate::fused) orthogonal: bool,
    /// Whether the device's own exponential serves the rows.
    pub(in crate::fused) native_exp2: bool,
}

impl Shape {
    /// Threads of a cube.
    pub(in crate::fused) fn threads(&self) -> usize {
        self.lanes * self.groups
    }

    /// Rounds in which a thread takes a row's particles, four at a time.
    pub(in crate::fused) fn rounds(&self) -> usize {
        self.particles.div_ceil(4)
    }

    /// Particles of a round.
    pub(super) fn round_count(&self, round: usize) -> usize {
        (self.particles - 4 * round).min(4)
    }

    /// Products between two additions of the lanes' sums.
    pub(super) fn pass(&self) -> usize {
        self.depth * self.groups
    }

    /// Numbers from a product's and particle's sums over lanes to the next: odd, so that neighbours lie in different banks.
    pub(super) fn lane_stride(&self) -> usize {
        self.lanes | 1
    }

    /// Numbers of one of the [`LANE_SUMS`].
    pub(super) fn lane_sums(&self) -> usize {
        self.pass() * self.round_count(0) * self.lane_stride()
    }

    /// How many of the [`CUBE_SUMS`] there are.
    pub(super) fn own_sums(&self) -> usize {
        if self.learned {
            CUBE_SUMS
        } else {
            CUBE_SUMS - 2 + usize::from(self.orthogonal)
        }
    }

    /// Numbers of shared memory in which threads leave their sums.
    pub(super) fn scratch(&self) -> usize {
        let of_periods = 4 * self.round_count(0) * self.threads();
        (LANE_SUMS * self.lane_sums()).max(of_periods)
    }

    /// Bytes of shared memory that the kernel takes.
    pub(in crate::fused) fn shared_bytes(&self) -> usize {
        let vectors = 2 * 4 * self.rounds();
        4 * (self.scratch() + self.chunk * (vectors + (5 + self.own_sums()) * self.particles + 1))
    }
}

/// Values for the products from the priors and the number of periods.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(in crate::fused) struct Model {
    /// The clip bounds times `log2 e`.
    pub(in crate::fused) clip_low2: f32,
    pub(in crate::fused) clip_high2: f32,
    /// The products' effects' prior mean.
    pub(in crate::fused) effect_mean: f32,
}
