// The work of a layer besides attention and matrix products: the norms and the MLP's gate, each in one pass over memory,
// and their gradients, for learning.

#include <omp.h>

#include "vectors.h"

// ---- RMSNorm of the residual stream plus a change

struct Norm {
    int64_t rows, size, threads;
    const void *stream, *change, *weight;  // (rows, size), (rows, size) or null, (size)
    void *sum, *normed;                    // (rows, size); sum is null without a change
    float eps;
};

template <class Stream, class Normed>
static void normalise(const Norm &pass) {
#pragma omp parallel for num_threads(int(pass.threads)) if (4 * pass.rows * pass.size > min_parallel_work)
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
                numbers = {numbers.first + added.first, numbers.second + added.second};
                write_some(sum + d, numbers, size - d);
                numbers = read_some(sum + d, size - d);  // as rounded on memory, so that the norm sees what the next layer sees
            }
            squares += numbers.first * numbers.first + numbers.second * numbers.second;
        }
        const float by = 1 / std::sqrt(sum_of(squares) / float(size) + pass.eps);
        for (int64_t d = 0; d < size; d += block) {
            const Block numbers = read_some((change ? sum : stream) + d, size - d), times = read_some(weight + d, size - d);
            const Block normed = {numbers.first * by * times.first, numbers.second * by * times.second};
            write_some((Normed *)pass.normed + row * size + d, normed, size - d);
        }
    }
}

// The residual stream and the normed numbers are fp32 or Number each: (fp32, fp32), (fp32, Number), (Number, Number).
extern "C" void norm_to_float(const Norm *pass) { normalise<float, float>(*pass); }
extern "C" void norm_to_number(const Norm *pass) { normalise<float, Number>(*pass); }
extern "C" void norm_of_number(const Norm *pass) { normalise<Number, Number>(*pass); }

struct NormBackward {
    int64_t rows, size, threads;
    const void *sum, *weight;         // (rows, size): what was normed; (size)
    const void *grad_sum, *grad_normed;  // (rows, size): incoming gradients; grad_sum may be null
    void *grad_stream, *grad_change;     // (rows, size): the same gradient twice; grad_change of Number, or null
    float *grad_weight;                  // (threads, size): zeros; each thread adds to its own row
    float eps;
};

// With x = sum, w = weight, g = grad_normed · w, r = 1 / √(mean x² + eps):
// grad_stream = grad_sum + r g − r³ mean(g x) x, grad_weight = Σ grad_normed · r x.
template <class Stream, class Normed>
static void normalise_backward(const NormBackward &pass) {
#pragma omp parallel num_threads(int(pass.threads)) if (8 * pass.rows * pass.size > min_parallel_work)
    {
        const int64_t size = pass.size;
        const Stream *weight = (const Stream *)pass.weight;
        float *grad_weight = pass.grad_weight + omp_get_thread_num() * size;
#pragma omp for
        for (int64_t row = 0; row < pass.rows; row++) {
            const Stream *sum = (const Stream *)pass.sum + row * size;
            const Stream *grad_sum = pass.grad_sum ? (const Stream *)pass.grad_sum + row * size : nullptr;
            const Normed *grad_normed = (const Normed *)pass.grad_normed + row * size;
            Lanes squares = {}, products = {};
            for (int64_t d = 0; d < size; d += block) {
                const int64_t count = size - d;
                const Block x = read_some(sum + d, count), w = read_some(weight + d, count), g = read_some(grad_normed + d, count);
                squares += x.first * x.first + x.second * x.second;
                products += g.first * w.first * x.first + g.second * w.second * x.second;
            }
            const float by = 1 / std::sqrt(sum_of(squares) / float(size) + pass.eps);
            const float off = by * by * by * sum_of(products) / float(size);
            for (int64_t d = 0; d < size; d += block) {
                const int64_t count = size - d;
                const Block x = read_some(sum + d, count), w = read_some(weight + d, count), g = read_some(grad_normed + d, count);
                Block grad = {by * g.first * w.first - off * x.first, by * g.second * w.second - off * x.second};
                if (grad_sum) {
                    const Block more = read_some(grad_sum + d, count);
                    grad = {grad.first + more.first, grad.second + more.second};
                }
                write_some((Stream *)pass.grad_stream + row * size + d, grad, count);
                if (pass.grad_change) write_some((Number *)pass.grad_change + row * size + d, grad, count);
                const Block so_far = read_some(grad_weight + d, count);
                write_some(grad_weight + d, {so_far.first + by * g.first * x.first, so_far.second + by * g.second * x.second}, count);
            }
        }
    }
}

extern "C" void norm_to_float_backward(const NormBackward *pass) { normalise_backward<float, float>(*pass); }
extern "C" void norm_to_number_backward(const NormBackward *pass) { normalise_backward<float, Number>(*pass); }
extern "C" void norm_of_number_backward(const NormBackward *pass) { normalise_backward<Number, Number>(*pass); }

// ---- SwiGLU's gate: silu(gate) · up

struct Gate {
    int64_t rows, size, stride, threads;
    const Number *gate, *up;  // (rows, size), with `stride` numbers from a row to the next
    Number *gated;            // (rows, size)
};

// Takes the exponential of -|x|, which cannot overflow.
static inline Lanes sigmoid(Lanes x) {
    const Lanes zero = {}, one = zero + 1.0f, power = exponential(x < zero ? x : zero - x);
    return (x < zero ? power : one) / (one + power);
}

extern "C" void gate(const Gate *pass) {
#pragma omp parallel for num_threads(int(pass->threads)) if (16 * pass->rows * pass->size > min_parallel_work)
    for (int64_t row = 0; row < pass->rows; row++) {
        const Number *gates = pass->gate + row * pass->stride, *ups = pass->up + row * pass->stride;
        for (int64_t d = 0; d < pass->size; d += block) {
            const int64_t count = pass->size - d;
            const Block gate = read_some(gates + d, count), up = read_some(ups + d, count);
            const Block gated = {gate.first * sigmoid(gate.first) * up.first, gate.second * sigmoid(gate.second) * up.second};
            write_some(pass->gated + row * pass->size + d, gated, count);
        }
    }
}

struct GateBackward {
    int64_t rows, size, threads;
    const Number *gate, *up, *grad_gated;  // (rows, size)
    Number *grad_gate, *grad_up;           // (rows, size)
};

struct Gradients {
    Lanes grad_gate, grad_up;
};

static inline Gradients gate_gradients(Lanes gate, Lanes up, Lanes grad_gated) {
    const Lanes open = sigmoid(gate);
    return {grad_gated * up * open * (gate * (1.0f - open) + 1.0f), grad_gated * gate * open};
}

extern "C" void gate_backward(const GateBackward *pass) {
#pragma omp parallel for num_threads(int(pass->threads)) if (16 * pass->rows * pass->size > min_parallel_work)
    for (int64_t row = 0; row < pass->rows; row++) {
        for (int64_t d = row * pass->size; d < (row + 1) * pass->size; d += block) {
            const int64_t count = (row + 1) * pass->size - d;
            const Block gate = read_some(pass->gate + d, count), up = read_some(pass->up + d, count);
            const Block grad_gated = read_some(pass->grad_gated + d, count);
            const Gradients first = gate_gradients(gate.first, up.first, grad_gated.first);
            const Gradients second = gate_gradients(gate.second, up.second, grad_gated.second);
            write_some(pass->grad_gate + d, {first.grad_gate, second.grad_gate}, count);
            write_some(pass->grad_up + d, {first.grad_up, second.grad_up}, count);
        }
    }
}
