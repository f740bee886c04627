//! The kinds of inference methods, and the facts that depend on neither settings nor backend.

use crate::progress::StepUnit;

/// An inference method without its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// See [`Method::Svi`](crate::Method::Svi).
    Svi,
    /// See [`Method::Nuts`](crate::Method::Nuts).
    Nuts,
    /// See [`Method::Laplace`](crate::Method::Laplace).
    Laplace,
    /// See [`Method::StructuredVi`](crate::Method::StructuredVi).
    StructuredVi,
    /// See [`Method::Meanfield`](crate::Method::Meanfield).
    Meanfield,
}

/// Facts about a method that depend on neither its settings nor its backend.
pub(crate) struct Facts {
    name: &'static str,
    pub(crate) words: &'static str,
    pub(crate) words_orthogonal: &'static str,
    description: &'static str,
    step_unit: StepUnit,
    is_fitted_whole: bool,
    has_draws: bool,
}

impl MethodKind {
    /// Every method, in the order of the command's help.
    pub const ALL: [MethodKind; 5] = [
        MethodKind::Svi,
        MethodKind::Nuts,
        MethodKind::Laplace,
        MethodKind::StructuredVi,
        MethodKind::Meanfield,
    ];

    pub(crate) const fn facts(self) -> Facts {
        match self {
            MethodKind::Svi => Facts {
                name: "svi",
                words: "SVI, mean-field",
                words_orthogonal: "SVI, orthogonal coordinates",
                description: "Stochastic variational inference with a mean-field guide, by default in coordinates in which its \
                              intervals hold",
                step_unit: StepUnit::Iterations,
                is_fitted_whole: false,
                has_draws: false,
            },
            MethodKind::Nuts => Facts {
                name: "nuts",
                words: "NUTS",
                words_orthogonal: "NUTS",
                description: "Hamiltonian Monte Carlo: slow, exact. Trajectories of about a quarter rotation in the structured \
                              metric, the No-U-Turn sampler in the diagonal one",
                step_unit: StepUnit::Draws,
                is_fitted_whole: false,
                has_draws: true,
            },
            MethodKind::Laplace => Facts {
                name: "laplace",
                words: "Laplace",
                words_orthogonal: "Laplace",
                description: "The Gaussian at the posterior mode, with the exact precision there: seconds at a million products",
                step_unit: StepUnit::Steps,
                is_fitted_whole: true,
                has_draws: false,
            },
            MethodKind::StructuredVi => Facts {
                name: "structured-vi",
                words: "structured Gaussian VI",
                words_orthogonal: "structured Gaussian VI",
                description: "The Gaussian with the exact block-arrowhead precision that maximizes the evidence lower bound: closest \
                              to the exact posterior without sampling",
                step_unit: StepUnit::Steps,
                is_fitted_whole: true,
                has_draws: false,
            },
            MethodKind::Meanfield => Facts {
                name: "meanfield",
                words: "mean-field optimum",
                words_orthogonal: "mean-field optimum, orthogonal coordinates",
                description: "The mean-field optimum in closed form: what svi converges to, in either coordinates",
                step_unit: StepUnit::Steps,
                is_fitted_whole: true,
                has_draws: false,
            },
        }
    }

    /// The name in the command and in files.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// What the method is, for the command's help; without a full stop.
    pub const fn description(self) -> &'static str {
        self.facts().description
    }

    /// What a step of a run is.
    pub const fn step_unit(self) -> StepUnit {
        self.facts().step_unit
    }

    /// Whether a run ends within seconds and is timed as a whole, from the loaded panel to all marginals,
    /// instead of by step. Such a run has no posterior before its end.
    pub const fn is_fitted_whole(self) -> bool {
        self.facts().is_fitted_whole
    }

    /// Whether it draws from the posterior, so that runs have [`draws`](crate::Run::draws) and count
    /// [`gradients`](crate::Run::gradients).
    pub const fn has_draws(self) -> bool {
        self.facts().has_draws
    }
}
