// What a layer does beside attention and its matrix products: the norms and the gate of the MLP, each in one pass over its
// numbers, and their gradients, for learning.

#include <omp.h>

#include "vectors.h"

// ---- norms: Llama's, of what a row was plus its change

struct Norm {
    int64_t rows, size, threads;
    const void *stream, *change, *weight;  // (rows, size) twice, change may be null; (size)
    void *sum, *normed;                    // (rows, size); without a change, sum is null
    float eps;
};

template <class Stream, class Normed>
static void normalise(const Norm &pass) {
#pragma omp parallel for num_threads(int(pass.threads)) if (4 * pass.rows * pass.size > worth_threads)
    for (int64_t row = 0; row < pass.rows; row++) {
        const int64_t size = pass.size;
        const Stream *stream = (const Stream *)pass.stream + row * size, *weight = (const Stream *)pass.weight;
        const Number *change = pass.change ? (const Number *)pass.change + row * size : nullptr;
        Stream *sum = (Stream *)pass.sum + row * size;
        Lanes squares = {};
        for (int64_t d = 0; d < size; d += block) {
            Block numbers = read_some(stream + d, size - d);
            if (change) {
                const Block added = read_some(change + d, size - d);
                numbers = {numbers.one + added.one, numbers.other + added.other};
                write_some(sum + d, numbers, size - d);
                numbers = read_some(sum + d, size - d);  // as rounded
            }
            squares += numbers.one * numbers.one + numbers.other * numbers.other;
        }
        const float by = 1 / std::sqrt(sum_of(squares) / float(size) + pass.eps);
        for (int64_t d = 0; d < size; d += block) {
            const Block numbers = read_some((change ? sum : stream) + d, size - d), times = read_some(weight + d, size - d);
            const Block normed = {numbers.one * by * times.one, numbers.other * by * times.other};
            write_some((Normed *)pass.normed + row * size + d, normed, size - d);
        }
    }
}

// The residual stream's numbers and those that the layers multiply are fp32 or Number.
extern "C" void norm_to_float(const Norm *pass) { normalise<float, float>(*pass); }
extern "C" void norm_to_number(const Norm *pass) { normalise<float, Number>(*pass); }
extern "C" void norm_of_number(const Norm *pass) { normalise<Number, Number>(*pass); }

struct NormBack {
    int64_t rows, size, threads;
    const void *sum, *weight;         // (rows, size), what was normed; (size)
    const void *of_sum, *of_normed;   // (rows, size): gradients; that of the sum may be null
    void *of_stream, *of_change;      // (rows, size): the gradient of both, of_change in Number's or null
    float *of_weight;                 // (threads, size): zeros, what each thread adds to
    float eps;
};

// With x = sum, w = weight, g = of_normed · w, r = 1 / √(mean x² + eps):
// of_stream = of_sum + r g − r³ mean(g x) x, of_weight = Σ of_normed · r x.
template <class Stream, class Normed>
static void normalise_back(const NormBack &pass) {
#pragma omp parallel num_threads(int(pass.threads)) if (8 * pass.rows * pass.size > worth_threads)
    {
        const int64_t size = pass.size;
        const Stream *weight = (const Stream *)pass.weight;
        float *of_weight = pass.of_weight + omp_get_thread_num() * size;
#pragma omp for
        for (int64_t row = 0; row < pass.rows; row++) {
            const Stream *sum = (const Stream *)pass.sum + row * size;
            const Stream *of_sum = pass.of_sum ? (const Stream *)pass.of_sum + row * size : nullptr;
            const Normed *of_normed = (const Normed *)pass.of_normed + row * size;
            Lanes squares = {}, products = {};
            for (int64_t d = 0; d < size; d += block) {
                const int64_t count = size - d;
                const Block x = read_some(sum + d, count), w = read_some(weight + d, count), g = read_some(of_normed + d, count);
                squares += x.one * x.one + x.other * x.other;
                products += g.one * w.one * x.one + g.other * w.other * x.other;
            }
            const float by = 1 / std::sqrt(sum_of(squares) / float(size) + pass.eps);
            const float off = by * by * by * sum_of(products) / float(size);
            for (int64_t d = 0; d < size; d += block) {
                const int64_t count = size - d;
                const Block x = read_some(sum + d, count), w = read_some(weight + d, count), g = read_some(of_normed + d, count);
                Block of = {by * g.one * w.one - off * x.one, by * g.other * w.other - off * x.other};
                if (of_sum) {
                    const Block more = read_some(of_sum + d, count);
                    of = {of.one + more.one, of.other + more.other};
                }
                write_some((Stream *)pass.of_stream + row * size + d, of, count);
                if (pass.of_change) write_some((Number *)pass.of_change + row * size + d, of, count);
                const Block so_far = read_some(of_weight + d, count);
                write_some(of_weight + d, {so_far.one + by * g.one * x.one, so_far.other + by * g.other * x.other}, count);
            }
        }
    }
}

extern "C" void norm_to_float_back(const NormBack *pass) { normalise_back<float, float>(*pass); }
extern "C" void norm_to_number_back(const NormBack *pass) { normalise_back<float, Number>(*pass); }
extern "C" void norm_of_number_back(const NormBack *pass) { normalise_back<Number, Number>(*pass); }

// ---- the MLP's gate: silu(gate) · up

struct Gate {
    int64_t rows, size, stride, threads;
    const Number *gate, *up;  // (rows, size), stride from one row to the next
    Number *gated;            // (rows, size)
};

static inline Lanes sigmoid(Lanes x) {
    const Lanes zero = {}, one = zero + 1.0f, power = exponential(x < zero ? x : zero - x);
    return (x < zero ? power : one) / (one + power);
}

extern "C" void gate(const Gate *pass) {
#pragma omp parallel for num_threads(int(pass->threads)) if (16 * pass->rows * pass->size > worth_threads)
    for (int64_t row = 0; row < pass->rows; row++) {
        const Number *gates = pass->gate + row * pass->stride, *ups = pass->up + row * pass->stride;
        for (int64_t d = 0; d < pass->size; d += block) {
            const int64_t count = pass->size - d;
            const Block gate = read_some(gates + d, count), up = read_some(ups + d, count);
            const Block gated = {gate.one * sigmoid(gate.one) * up.one, gate.other * sigmoid(gate.other) * up.other};
            write_some(pass->gated + row * pass->size + d, gated, count);
        }
    }
}

struct GateBack {
    int64_t rows, size, threads;
    const Number *gate, *up, *of_gated;  // (rows, size)
    Number *of_gate, *of_up;             // (rows, size)
};

struct Gradients {
    Lanes of_gate, of_up;
};

static inline Gradients gradients_of(Lanes gate, Lanes up, Lanes of_gated) {
    const Lanes open = sigmoid(gate);
    return {of_gated * up * open * (gate * (1.0f - open) + 1.0f), of_gated * gate * open};
}

extern "C" void gate_back(const GateBack *pass) {
#pragma omp parallel for num_threads(int(pass->threads)) if (16 * pass->rows * pass->size > worth_threads)
    for (int64_t row = 0; row < pass->rows; row++) {
        for (int64_t d = row * pass->size; d < (row + 1) * pass->size; d += block) {
            const int64_t count = (row + 1) * pass->size - d;
            const Block gate = read_some(pass->gate + d, count), up = read_some(pass->up + d, count);
            const Block of_gated = read_some(pass->of_gated + d, count);
            const Gradients one = gradients_of(gate.one, up.one, of_gated.one);
            const Gradients other = gradients_of(gate.other, up.other, of_gated.other);
            write_some(pass->of_gate + d, {one.of_gate, other.of_gate}, count);
            write_some(pass->of_up + d, {one.of_up, other.of_up}, count);
        }
    }
}
