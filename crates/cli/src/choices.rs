//! Arguments that name one of a library's choices: the parsers, with what the help says of each choice.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use infermark::{
    Coordinates, Cut, Likelihood, MethodKind, Metric, Parameterization, Precision, Specification,
};

/// Reads one of `choices` by its name; the help lists them with what is said of each.
fn choice_of<T, const N: usize>(
    name: fn(T) -> &'static str,
    choices: [(T, &'static str); N],
) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let values = choices.map(|(choice, description)| PossibleValue::new(name(choice)).help(description));
    PossibleValuesParser::new(values).map(move |text| {
        let chosen = choices.iter().find(|(choice, _)| name(*choice) == text);
        chosen.expect("the names of all choices are those that pass").0
    })
}

/// Reads the name of a model.
pub(crate) fn model_parser() -> impl TypedValueParser<Value = Specification> {
    choice_of(
        Specification::name,
        [
            (
                Specification::Sales,
                "For one's own sales: prices relative to each product's usual price (its geometric mean), so that the unit of price \
                 does not matter, and no clip of the rates but what keeps numbers finite",
            ),
            (
                Specification::Published,
                "The published specification: ln price as it is, log rates clipped to -4 and 20",
            ),
        ],
    )
}

/// Reads the name of a likelihood.
pub(crate) fn likelihood_parser() -> impl TypedValueParser<Value = Likelihood> {
    choice_of(
        Likelihood::name,
        Likelihood::ALL.map(|law| (law, law.description())),
    )
}

/// Reads the name of an inference method.
pub(crate) fn method_parser() -> impl TypedValueParser<Value = MethodKind> {
    choice_of(
        MethodKind::name,
        MethodKind::ALL.map(|kind| (kind, kind.description())),
    )
}

/// Reads the name of a form of the sites.
pub(crate) fn parameterization_parser() -> impl TypedValueParser<Value = Parameterization> {
    choice_of(
        Parameterization::name,
        [
            (Parameterization::Centered, "Centred: what the published code ran"),
            (
                Parameterization::Learned,
                "One learned centredness per site, from 0.5: what the published code wrote",
            ),
            (Parameterization::Noncentered, "Non-centred"),
        ],
    )
}

/// Reads the name of a guide's coordinates.
pub(crate) fn coordinates_parser() -> impl TypedValueParser<Value = Coordinates> {
    choice_of(
        Coordinates::name,
        [
            (
                Coordinates::Published,
                "The model's own parameters, as published: intervals far too narrow",
            ),
            (
                Coordinates::Orthogonal,
                "Coordinates in which the posterior is nearly uncorrelated: intervals about as wide as the exact ones",
            ),
        ],
    )
}

/// Reads the name of a floating-point type.
pub(crate) fn precision_parser() -> impl TypedValueParser<Value = Precision> {
    choice_of(
        Precision::name,
        [
            (
                Precision::F32,
                "Single precision for rates, double for the sums that decide log-weights",
            ),
            (Precision::F64, "Double precision throughout"),
        ],
    )
}

/// Reads the name of a cut of the panel.
pub(crate) fn cut_parser() -> impl TypedValueParser<Value = Cut> {
    choice_of(
        Cut::name,
        [
            (
                Cut::Product,
                "By product: a shard has the parameters of its products to itself, and sums by category cross",
            ),
            (
                Cut::Row,
                "By row, as published: every shard has all parameters, and the whole gradient crosses; for --method svi on the CPU",
            ),
        ],
    )
}

/// Reads the name of a mass matrix.
pub(crate) fn metric_parser() -> impl TypedValueParser<Value = Metric> {
    choice_of(
        Metric::name,
        [
            (
                Metric::Structured,
                "The model's own block-arrowhead precision at the posterior mode; needs --parameterization centered",
            ),
            (Metric::Diagonal, "One variance per latent, tuned during warm-up"),
        ],
    )
}
