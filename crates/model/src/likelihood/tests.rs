use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

#[test]
fn names_in_files_are_the_commands() {
    for likelihood in Likelihood::ALL {
        let name: StrDeserializer<'_, Error> = likelihood.name().into_deserializer();
        assert_eq!(Likelihood::deserialize(name), Ok(likelihood));
        assert_eq!(Likelihood::named(likelihood.name()), Some(likelihood));
    }
    assert_eq!(Likelihood::named("gaussian"), None);
}

/// Counts, log rates and own parameters at which distributions are checked.
const POINTS: [(u32, f64, f64); 7] = [
    (0, -1.0, 0.5),
    (1, 0.3, 2.0),
    (7, 2.0, 1.5),
    (16, 2.5, 0.0),
    (17, 3.0, -1.0),
    (500, 6.0, 1.6),
    (40, 3.5, 6.0),
];

struct DerivativesAreDifferences(Likelihood);

impl LikelihoodVisitor for DerivativesAreDifferences {
    type Output = ();

    fn visit<L: RowLikelihood>(self) {
        let h = 1e-5;
        let has_parameter = self.0.parameter().is_some();
        for (y, eta, parameter) in POINTS {
            let law = L::new(parameter);
            let (found, weight) = (law.terms(y, eta), law.weight(y, eta));
            let close = |analytic: f64, low: f64, high: f64, what: &str| {
                let numeric = (high - low) / (2.0 * h);
                // Truncation of order h^2, and rounding of terms of the size of the count over h.
                let tolerance = 1e-8 * (1.0 + f64::from(y) + eta.exp()) + 1e-6 * analytic.abs();
                assert!(
                    (analytic - numeric).abs() < tolerance,
                    "{} {what} of {y}, {eta}, {parameter}: {analytic} {numeric}",
                    L::NAME
                );
            };
            let at = |d: f64| law.terms(y, eta + d);
            let (low, high) = (at(-h), at(h));
            close(found.by_eta, low.log_likelihood, high.log_likelihood, "by eta");
            close(-weight.by_eta, low.by_eta, high.by_eta, "weight");
            let beside = |d: f64| L::new(parameter + d).terms(y, eta);
            let (low, high) = (beside(-h), beside(h));
            close(
                found.by_parameter,
                low.log_likelihood,
                high.log_likelihood,
                "by parameter",
            );
            close(-weight.cross, low.by_eta, high.by_eta, "cross");
            let ln_variance = |d: f64| L::new(parameter + d).variance_ratio(eta).ln();
            close(
                law.log_variance_by_parameter(eta),
                ln_variance(-h),
                ln_variance(h),
                "log variance",
            );
            assert_eq!(has_parameter, found.by_parameter != 0.0);
        }
    }
}

#[test]
fn derivatives_are_differences() {
    for likelihood in Likelihood::ALL {
        likelihood.visit(DerivativesAreDifferences(likelihood));
    }
}

/// Sums over all counts: probabilities sum to one, the mean is the rate, and the variance and the mean score
/// are as documented.
struct MomentsAreSums;

impl LikelihoodVisitor for MomentsAreSums {
    type Output = ();

    fn visit<L: RowLikelihood>(self) {
        for (eta, parameter) in [(-1.0, 0.5), (0.5, 1.0), (2.0, 2.0), (3.0, 1.5)] {
            let law = L::new(parameter);
            let (mut one, mut mean, mut square, mut score, mut information) = (0.0, 0.0, 0.0, 0.0, 0.0);
            let mut ln_factorial = 0.0;
            for y in 0..3000u32 {
                let count = f64::from(y);
                if y > 0 {
                    ln_factorial += count.ln();
                }
                let terms = law.terms(y, eta);
                let p = (terms.log_likelihood - ln_factorial).exp();
                one += p;
                mean += p * count;
                square += p * count * count;
                score += p * terms.by_eta;
                information += p * (law.weight(y, eta).by_eta - terms.by_eta.powi(2));
            }
            let rate = f64::exp(eta);
            let variance = law.variance_ratio(eta) * rate;
            let close = |found: f64, expected: f64, what: &str| {
                assert!(
                    (found - expected).abs() < 1e-9 * (1.0 + variance),
                    "{} {what}: {found} {expected}",
                    L::NAME
                );
            };
            close(one, 1.0, "sum");
            close(mean, rate, "mean");
            close(square - mean * mean, variance, "variance");
            close(score, 0.0, "score");
            close(information, 0.0, "information");
            assert_eq!(L::IS_EQUIDISPERSED, law.variance_ratio(eta) == 1.0);
        }
    }
}

#[test]
fn moments_are_sums_over_all_counts() {
    for likelihood in Likelihood::ALL {
        likelihood.visit(MomentsAreSums);
    }
}

/// Closed forms of means against the trapezoid rule.
struct MeansOverNormals;

impl LikelihoodVisitor for MeansOverNormals {
    type Output = usize;

    fn visit<L: RowLikelihood>(self) -> usize {
        let mut checked = 0;
        for (y, mean, parameter) in POINTS {
            let (law, variance) = (L::new(parameter), 0.3f64);
            let Some((terms, weight)) = law.expected(y, mean, variance) else {
                continue;
            };
            let step = 0.05;
            let mut sums = [0.0; 3];
            for k in -200..=200 {
                let z = step * f64::from(k);
                let density = step * (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
                let eta = mean + z * variance.sqrt();
                let at = law.terms(y, eta);
                let all = [at.log_likelihood, at.by_eta, law.weight(y, eta).by_eta];
                sums.iter_mut().zip(all).for_each(|(sum, x)| *sum += density * x);
            }
            for (found, expected) in [terms.log_likelihood, terms.by_eta, weight.by_eta]
                .iter()
                .zip(sums)
            {
                assert!((found - expected).abs() < 1e-10 * (1.0 + f64::from(y) * mean.abs() + mean.exp()));
            }
            checked += 1;
        }
        checked
    }
}

#[test]
fn closed_forms_of_means_over_normal_log_rates() {
    assert_eq!(Likelihood::Poisson.visit(MeansOverNormals), POINTS.len());
    assert_eq!(Likelihood::NegativeBinomial.visit(MeansOverNormals), 0);
}

/// Mean and variance of draws, in their standard errors.
struct DrawsHaveTheMoments;

impl LikelihoodVisitor for DrawsHaveTheMoments {
    type Output = ();

    fn visit<L: RowLikelihood>(self) {
        let n = 100_000;
        for (seed, (eta, parameter)) in [(-1.5, 1.0), (1.0, 2.0), (4.0, 1.5), (9.0, 3.0)]
            .into_iter()
            .enumerate()
        {
            let law = L::new(parameter);
            let mut rng = StdRng::seed_from_u64(seed as u64);
            let rate = f64::exp(eta);
            let variance = law.variance_ratio(eta) * rate;
            let (mut sum, mut squares, mut fourths) = (0.0, 0.0, 0.0);
            for _ in 0..n {
                let z = (f64::from(law.draw(rate, &mut rng).unwrap()) - rate) / variance.sqrt();
                sum += z;
                squares += z * z;
                fourths += z.powi(4);
            }
            let n = f64::from(n);
            // Five standard errors, that of the variance from the draws themselves.
            assert!(
                (sum / n).abs() < 5.0 / n.sqrt(),
                "{} {eta}: mean {}",
                L::NAME,
                sum / n
            );
            let error = (fourths / n - (squares / n).powi(2)).sqrt() / n.sqrt();
            assert!(
                (squares / n - 1.0).abs() < 5.0 * error,
                "{} {eta}: variance {} +- {error}",
                L::NAME,
                squares / n
            );
        }
        // A count that no panel holds is refused, not cut.
        let mut rng = StdRng::seed_from_u64(9);
        assert!(L::new(30.0).draw(4e9, &mut rng).unwrap_err() > 2e9);
    }
}

#[test]
fn draws_have_the_moments_of_the_law() {
    for likelihood in Likelihood::ALL {
        likelihood.visit(DrawsHaveTheMoments);
    }
}
