// What a decoding step does between its matrix products, on a CPU: attention of new tokens over cached keys and values, the
// norms, and the gate of the MLP, each in one pass over its numbers. `kernels.py` compiles it for a number type and a head's
// width, which loops of a known length need, and calls it.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct bf16 {
    uint16_t bits;
};

using Number = NUMBER;
constexpr int64_t width = WIDTH;

static inline float read(float number) { return number; }

static inline float read(bf16 number) {
    const uint32_t bits = uint32_t(number.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

static inline void write(float &to, float number) { to = number; }

static inline void write(bf16 &to, float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof bits);
    to.bits = uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);  // to the nearest, ties to even
}

// e^x for x <= 0, to 4e-6 of itself, without a branch, so that compilers make vectors of it.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    const int32_t whole = int32_t(x * 1.44269504f - 0.5f);  // e^x = 2^whole * e^rest
    const float rest = x - float(whole) * 0.693147181f;
    float power = 1.9875691500e-4f;
    power = power * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    const int32_t bits = (whole + 127) << 23;
    float two_to_whole;
    std::memcpy(&two_to_whole, &bits, sizeof bits);
    return power * two_to_whole;
}

// ---- attention: turns queries and keys by their rotary angles, writes keys and values into the cache, and attends

struct Attention {
    int64_t rows, tokens, key_heads, groups;  // groups: queries per key
    int64_t room, stem_room, threads;         // columns there is room for, per row and in the stem
    const Number *heads;          // (rows, tokens, key_heads * groups + 2 * key_heads, width): queries, keys, values
    const float *cos, *sin;       // (rows, tokens, width)
    Number *keys, *values;        // (rows, key_heads, room, width)
    const int64_t *begins;        // (rows): the column of a row's first new token; it sees all up to its own
    const Number *stem_keys, *stem_values;  // (key_heads, stem_room, width), before the columns of every row
    const int64_t *stem_lengths;  // (rows): how much of the stem a row sees
    Number *found;                // (rows, tokens, key_heads * groups, width)
    float scale;
};

// Rotary embedding: the sines of the first half are negated, see `turning` in cache.py.
static void turn(const Number *from, const float *cos, const float *sin, float scale, float *to) {
    constexpr int64_t half = width / 2;
    for (int64_t d = 0; d < half; d++) {
        const float first = read(from[d]), second = read(from[d + half]);
        to[d] = (first * cos[d] + second * sin[d]) * scale;
        to[d + half] = (second * cos[d + half] + first * sin[d + half]) * scale;
    }
}

// Have a column fetched that will soon be read: waiting for memory is most of the work.
static inline void prefetch(const Number *column) {
    for (int64_t d = 0; d < width; d += 64 / sizeof(Number)) __builtin_prefetch(column + d);
}

// next: columns that are read after these.
static void scores_of(const float *query, const Number *keys, int64_t columns, float *scores, const Number *next) {
    for (int64_t c = 0; c < columns; c++) {
        prefetch(next + c * width);
        float sum = 0;
        for (int64_t d = 0; d < width; d++) sum += query[d] * read(keys[c * width + d]);
        scores[c] = sum;
    }
}

static void add_weighted(const float *weights, const Number *values, int64_t columns, float *sums, const Number *next) {
    for (int64_t c = 0; c < columns; c++) {
        prefetch(next + c * width);
        for (int64_t d = 0; d < width; d++) sums[d] += weights[c] * read(values[c * width + d]);
    }
}

// Scores to weights that add up to the returned total.
static float weights_of(float *scores, int64_t columns) {
    float highest = -INFINITY, total = 0;
    for (int64_t c = 0; c < columns; c++) highest = scores[c] > highest ? scores[c] : highest;
    for (int64_t c = 0; c < columns; c++) {
        scores[c] = exponential(scores[c] - highest);
        total += scores[c];
    }
    return total;
}

static void attend_head(const Attention &pass, int64_t row, int64_t head, float *scores) {
    const int64_t queries = pass.key_heads * pass.groups, all = queries + 2 * pass.key_heads;
    const int64_t place = (row * pass.key_heads + head) * pass.room, begin = pass.begins[row];
    Number *keys = pass.keys + place * width, *values = pass.values + place * width;
    const Number *heads = pass.heads + row * pass.tokens * all * width;
    const float *cos = pass.cos + row * pass.tokens * width, *sin = pass.sin + row * pass.tokens * width;
    float turned[width];
    for (int64_t token = 0; token < pass.tokens; token++) {
        const Number *key = heads + (token * all + queries + head) * width, *value = key + pass.key_heads * width;
        turn(key, cos + token * width, sin + token * width, 1.0f, turned);
        const int64_t column = (begin + token) * width;
        for (int64_t d = 0; d < width; d++) write(keys[column + d], turned[d]);
        std::memcpy(values + column, value, width * sizeof(Number));
    }

    const int64_t stem = pass.stem_lengths ? pass.stem_lengths[row] : 0;
    const int64_t stem_place = head * pass.stem_room * width;
    for (int64_t token = 0; token < pass.tokens; token++) {
        const int64_t columns = begin + token + 1;
        for (int64_t group = 0; group < pass.groups; group++) {
            const int64_t which = head * pass.groups + group;
            turn(heads + (token * all + which) * width, cos + token * width, sin + token * width, pass.scale, turned);
            scores_of(turned, pass.stem_keys + stem_place, stem, scores, keys);
            scores_of(turned, keys, columns, scores + stem, values);
            const float total = weights_of(scores, stem + columns);
            float sums[width] = {};
            add_weighted(scores, pass.stem_values + stem_place, stem, sums, values);
            add_weighted(scores + stem, values, columns, sums, keys + pass.room * width);
            Number *found = pass.found + ((row * pass.tokens + token) * queries + which) * width;
            for (int64_t d = 0; d < width; d++) write(found[d], sums[d] / total);
        }
    }
}

extern "C" void attend(const Attention *pass) {
#pragma omp parallel num_threads(int(pass->threads))
    {
        std::vector<float> scores(pass->stem_room + pass->room);
#pragma omp for
        for (int64_t item = 0; item < pass->rows * pass->key_heads; item++)
            attend_head(*pass, item / pass->key_heads, item % pass->key_heads, scores.data());
    }
}

// ---- norms: Llama's, of what a row was plus its change

struct Norm {
    int64_t rows, size, threads;
    const void *stream, *change, *weight;  // (rows, size) twice, change may be null; (size)
    void *sum, *normed;                    // (rows, size); sum may be null
    float eps;
};

template <class Stream, class Normed>
static void normalise(const Norm &pass) {
#pragma omp parallel for num_threads(int(pass.threads))
    for (int64_t row = 0; row < pass.rows; row++) {
        const Stream *stream = (const Stream *)pass.stream + row * pass.size, *weight = (const Stream *)pass.weight;
        if (pass.change) {
            const Number *change = (const Number *)pass.change + row * pass.size;
            Stream *sum = (Stream *)pass.sum + row * pass.size;
            for (int64_t d = 0; d < pass.size; d++) write(sum[d], read(stream[d]) + read(change[d]));
            stream = sum;
        }
        Normed *normed = (Normed *)pass.normed + row * pass.size;
        float squares = 0;
        for (int64_t d = 0; d < pass.size; d++) squares += read(stream[d]) * read(stream[d]);
        const float by = 1 / std::sqrt(squares / float(pass.size) + pass.eps);
        for (int64_t d = 0; d < pass.size; d++) write(normed[d], read(stream[d]) * by * read(weight[d]));
    }
}

// The residual stream's numbers and those that the layers multiply are fp32 or Number.
extern "C" void norm_to_float(const Norm *pass) { normalise<float, float>(*pass); }
extern "C" void norm_to_number(const Norm *pass) { normalise<float, Number>(*pass); }
extern "C" void norm_of_number(const Norm *pass) { normalise<Number, Number>(*pass); }

// ---- the MLP's gate: silu of the first half of each row times the second

struct Gate {
    int64_t rows, size, threads;
    const Number *both;  // (rows, 2 * size)
    Number *gated;       // (rows, size)
};

extern "C" void gate(const Gate *pass) {
#pragma omp parallel for num_threads(int(pass->threads))
    for (int64_t row = 0; row < pass->rows; row++) {
        const Number *gate = pass->both + row * 2 * pass->size, *up = gate + pass->size;
        Number *gated = pass->gated + row * pass->size;
        for (int64_t d = 0; d < pass->size; d++) {
            const float x = read(gate[d]), power = exponential(-std::fabs(x));
            write(gated[d], x * (x < 0 ? power : 1.0f) / (1.0f + power) * read(up[d]));
        }
    }
}
