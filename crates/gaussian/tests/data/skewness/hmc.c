// Hamiltonian Monte Carlo of the Poisson model without the clip of the log rate, in the coordinates that whiten the Laplace
// approximation; called by make_reference.py. A trajectory has a random number of leapfrog steps of a random size, both drawn
// before it, so that each draw is a plain Metropolis step. Steps and scales are adapted in the warm-up only.
//
// usage: hmc IN OUT SEED CHAINS WARMUP DRAWS MEAN_STEPS
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state[4];

static uint64_t rotated(uint64_t x, int k) { return x << k | x >> (64 - k); }

// xoshiro256**, Blackman and Vigna, 2018.
static uint64_t next(void) {
    uint64_t result = rotated(state[1] * 5, 7) * 9, t = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= t;
    state[3] = rotated(state[3], 45);
    return result;
}

static double uniform(void) { return ((next() >> 11) + 0.5) * 0x1p-53; }

static double normal(void) { return sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()); }

static int latents, rows, entries;
static int *elasticity, *effect, *period, *entry_row, *entry_column;
// eta0: log rates at the mode; whiten: L^-1, row-major; slope: gradient of the log prior at the mode.
static double *x, *y, *eta0, *whiten, *slope, *mode, *entry;
static double *rate, *theta, *by_theta;

static void read_all(void *to, size_t size, size_t count, FILE *file) {
    if (fread(to, size, count, file) != count) {
        fprintf(stderr, "the input is too short\n");
        exit(1);
    }
}

static void *block(size_t size, size_t count, FILE *file) {
    void *to = malloc(size * count);
    read_all(to, size, count, file);
    return to;
}

// theta = L^-T xi.
static void unwhitened(const double *xi) {
    memset(theta, 0, latents * sizeof *theta);
    for (int k = 0; k < latents; k++) {
        const double *w = whiten + (size_t)k * latents;
        for (int j = 0; j <= k; j++) theta[j] += w[j] * xi[k];
    }
}

static double log_density(const double *xi, double *gradient) {
    double value = 0;
    unwhitened(xi);
    for (int r = 0; r < rows; r++) {
        double eta = eta0[r] + x[r] * theta[elasticity[r]] + theta[effect[r]] + theta[period[r]];
        value += y[r] * eta;
        rate[r] = eta > 60 ? 60 : eta;
    }
    for (int r = 0; r < rows; r++) rate[r] = exp(rate[r]);
    memcpy(by_theta, slope, latents * sizeof *slope);
    for (int j = 0; j < latents; j++) value += slope[j] * theta[j];
    for (int k = 0; k < entries; k++) {
        double q = entry[k] * theta[entry_column[k]];
        by_theta[entry_row[k]] -= q;
        value -= 0.5 * q * theta[entry_row[k]];
    }
    for (int r = 0; r < rows; r++) {
        double residual = y[r] - rate[r];
        value -= rate[r];
        by_theta[elasticity[r]] += x[r] * residual;
        by_theta[effect[r]] += residual;
        by_theta[period[r]] += residual;
    }
    for (int k = 0; k < latents; k++) {
        const double *w = whiten + (size_t)k * latents;
        double sum = 0;
        for (int j = 0; j <= k; j++) sum += w[j] * by_theta[j];
        gradient[k] = sum;
    }
    return value;
}

int main(int count, char **arguments) {
    if (count != 8) return 2;
    FILE *in = fopen(arguments[1], "rb"), *out = fopen(arguments[2], "wb");
    if (!in || !out) return 1;
    int sizes[3];
    read_all(sizes, sizeof(int), 3, in);
    latents = sizes[0], rows = sizes[1], entries = sizes[2];
    elasticity = block(sizeof(int), rows, in);
    effect = block(sizeof(int), rows, in);
    period = block(sizeof(int), rows, in);
    x = block(sizeof(double), rows, in);
    y = block(sizeof(double), rows, in);
    eta0 = block(sizeof(double), rows, in);
    whiten = block(sizeof(double), (size_t)latents * latents, in);
    slope = block(sizeof(double), latents, in);
    mode = block(sizeof(double), latents, in);
    entry_row = block(sizeof(int), entries, in);
    entry_column = block(sizeof(int), entries, in);
    entry = block(sizeof(double), entries, in);
    rate = malloc(rows * sizeof *rate);
    theta = malloc(latents * sizeof *theta);
    by_theta = malloc(latents * sizeof *by_theta);
    int chains = atoi(arguments[4]), warmup = atoi(arguments[5]), draws = atoi(arguments[6]);
    int steps = atoi(arguments[7]);
    // splitmix64 of the seed.
    uint64_t seed = strtoull(arguments[3], NULL, 10) * 0x9E3779B97F4A7C15ull + 1;
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9E3779B97F4A7C15ull;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ z >> 27) * 0x94D049BB133111EBull;
        state[i] = z ^ z >> 31;
    }
    size_t bytes = latents * sizeof(double);
    float *kept = malloc(latents * sizeof *kept);
    double *at = malloc(bytes), *gradient = malloc(bytes), *to = malloc(bytes), *gradient_there = malloc(bytes);
    double *momentum = malloc(bytes), *scale = malloc(bytes), *mean = malloc(bytes), *squares = malloc(bytes);
    double accepted = 0;
    for (int chain = 0; chain < chains; chain++) {
        for (int j = 0; j < latents; j++) at[j] = normal(), scale[j] = 1, mean[j] = squares[j] = 0;
        int seen = 0;
        double log_step = log(0.3), value = log_density(at, gradient);
        for (int k = 0; k < warmup + draws; k++) {
            double energy = 0, energy_there = 0;
            for (int j = 0; j < latents; j++) momentum[j] = normal(), energy += momentum[j] * momentum[j];
            int length = 1 + (int)(uniform() * (2 * steps - 1) + 0.5);
            double step = exp(log_step) * (0.85 + 0.3 * uniform()), there = value;
            memcpy(to, at, bytes);
            memcpy(gradient_there, gradient, bytes);
            for (int s = 0; s < length; s++) {
                for (int j = 0; j < latents; j++) {
                    momentum[j] += 0.5 * step * scale[j] * gradient_there[j];
                    to[j] += step * scale[j] * momentum[j];
                }
                there = log_density(to, gradient_there);
                for (int j = 0; j < latents; j++) momentum[j] += 0.5 * step * scale[j] * gradient_there[j];
            }
            for (int j = 0; j < latents; j++) energy_there += momentum[j] * momentum[j];
            double gain = there - 0.5 * energy_there - value + 0.5 * energy;
            double acceptance = isfinite(gain) ? (gain > 0 ? 1 : exp(gain)) : 0;
            if (uniform() < acceptance) {
                double *swap = at;
                at = to, to = swap;
                swap = gradient, gradient = gradient_there, gradient_there = swap;
                value = there;
            }
            if (k < warmup) {
                log_step += (acceptance - 0.85) / pow(k + 10, 0.6);
                if (k > warmup / 4) {
                    seen++;
                    for (int j = 0; j < latents; j++) {
                        double off = at[j] - mean[j];
                        mean[j] += off / seen;
                        squares[j] += off * (at[j] - mean[j]);
                    }
                }
                if (k == warmup / 2 || k == warmup - 1 - warmup / 4) {
                    for (int j = 0; j < latents; j++) {
                        scale[j] = sqrt(squares[j] / (seen - 1));
                        mean[j] = squares[j] = 0;
                    }
                    seen = 0;
                }
            } else {
                accepted += acceptance;
                unwhitened(at);
                for (int j = 0; j < latents; j++) kept[j] = mode[j] + theta[j];
                fwrite(kept, sizeof *kept, latents, out);
            }
        }
    }
    fprintf(stderr, "acceptance %.3f\n", accepted / ((double)chains * draws));
    return fclose(out) != 0;
}
