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

// ---- numbers by vectors

typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Places __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
constexpr int64_t lanes = 16, block = 2 * lanes;

template <class To, class From>
static inline To same_bits(const From &from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class To>
static inline To at(const void *place) {
    To to;
    std::memcpy(&to, place, sizeof to);
    return to;
}

static inline Lanes pick(Lanes one, Lanes other, Places from) {
#ifdef __clang__
    Lanes result;
    for (int64_t i = 0; i < lanes; i++) result[i] = from[i] < lanes ? one[from[i]] : other[from[i] - lanes];
    return result;
#else
    return __builtin_shuffle(one, other, from);
#endif
}

// 32 numbers in the order in which Number's are read fastest: bf16 first at even places and then at odd ones, which takes
// two instructions for all; floats as they are.
struct Block {
    Lanes one, other;
};

static inline Block read_block(const bf16 *numbers) {
    const Bits bits = at<Bits>(numbers);
    return {same_bits<Lanes>(bits << 16), same_bits<Lanes>(bits & 0xFFFF0000u)};
}

static inline Block read_block(const float *numbers) {
    const Lanes one = at<Lanes>(numbers), other = at<Lanes>(numbers + lanes);
    if (sizeof(Number) == sizeof(float)) return {one, other};
    const Places even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return {pick(one, other, even), pick(one, other, even + 1)};
}

// To the nearest bf16, ties to even, in the upper half of each.
static inline Bits rounded(Lanes numbers) {
    const Bits bits = same_bits<Bits>(numbers);
    return bits + 0x7FFF + ((bits >> 16) & 1);
}

static inline void write_block(bf16 *to, const Block &from) {
    const Bits bits = (rounded(from.one) >> 16) | (rounded(from.other) & 0xFFFF0000u);
    std::memcpy(to, &bits, sizeof bits);
}

static inline void write_block(float *to, const Block &from) {
    Block plain = from;
    if (sizeof(Number) != sizeof(float)) {
        const Places first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
        plain = {pick(from.one, from.other, first), pick(from.one, from.other, first + 8)};
    }
    std::memcpy(to, &plain, sizeof plain);
}

// The first `count` numbers of a block, zeros behind them.
template <class Kind>
static inline Block read_some(const Kind *numbers, int64_t count) {
    if (count >= block) return read_block(numbers);
    Kind some[block] = {};
    std::memcpy(some, numbers, size_t(count) * sizeof(Kind));
    return read_block(some);
}

template <class Kind>
static inline void write_some(Kind *to, const Block &from, int64_t count) {
    if (count >= block) return write_block(to, from);
    Kind some[block];
    write_block(some, from);
    std::memcpy(to, some, size_t(count) * sizeof(Kind));
}

static inline float sum_of(Lanes numbers) {
    float sum = 0;
    for (int64_t i = 0; i < lanes; i++) sum += numbers[i];
    return sum;
}

// Four sums at once, in lanes 0, 4, 8 and 12 of the result.
static inline Lanes sums_of(const Lanes *of) {
    const Places low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    const Lanes two = pick(of[0], of[1], low) + pick(of[0], of[1], low + 8);
    const Lanes others = pick(of[2], of[3], low) + pick(of[2], of[3], low + 8);
    const Places first = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    const Lanes fours = pick(two, others, first) + pick(two, others, first + 4);
    const Places pairs = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
    const Places next = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
    const Lanes pair = fours + pick(fours, fours, pairs);
    return pair + pick(pair, pair, next);
}

// e^x for x <= 0, to 2e-7 of itself: Cephes' expf (Moshier), which takes log 2 in two parts.
static inline Lanes exponential(Lanes x) {
    const Lanes lowest = Lanes{} - 87.0f;
    x = x < lowest ? lowest : x;
    const Places whole = __builtin_convertvector(x * 1.44269504f - 0.5f, Places);  // e^x = 2^whole * e^rest
    const Lanes times = __builtin_convertvector(whole, Lanes), rest = x - times * 0.693359375f + times * 2.12194440e-4f;
    Lanes power = 1.9875691500e-4f * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    return power * same_bits<Lanes>((whole + 127) << 23);
}

// Other threads are waited for, which costs as much as this many multiplications or so.
constexpr int64_t worth_threads = 1 << 15;

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

constexpr int64_t num_blocks = (width + block - 1) / block;  // of a head

struct Head {
    Block blocks[num_blocks];
};

static inline Block block_of(const Number *head, int64_t b) { return read_some(head + b * block, width - b * block); }

static inline void write_head(Number *to, const Head &head) {
    for (int64_t b = 0; b < num_blocks; b++) write_some(to + b * block, head.blocks[b], width - b * block);
}

static inline float value_of(float number) { return number; }
static inline float value_of(bf16 number) { return same_bits<float>(uint32_t(number.bits) << 16); }

// Rotary embedding: the sines of the first half are negated, see `turning` in cache.py.
static inline Head turned(const Number *from, const float *cos, const float *sin, float scale) {
    constexpr int64_t half = width / 2;
    float to[num_blocks * block] = {};
    for (int64_t d = 0; d < half; d++) {
        const float first = value_of(from[d]), second = value_of(from[d + half]);
        to[d] = (first * cos[d] + second * sin[d]) * scale;
        to[d + half] = (second * cos[d + half] + first * sin[d + half]) * scale;
    }
    Head head;
    for (int64_t b = 0; b < num_blocks; b++) head.blocks[b] = read_block(to + b * block);
    return head;
}

// Have a column fetched that will soon be read.
static inline void prefetch(const Number *column) {
    for (int64_t d = 0; d < width; d += 64 / sizeof(Number)) __builtin_prefetch(column + d);
}

// next: columns that are read after these.
static void scores_of(const Head &query, const Number *keys, int64_t columns, float *scores, const Number *next) {
    for (int64_t begin = 0; begin < columns; begin += 4) {
        const int64_t count = columns - begin < 4 ? columns - begin : 4;
        Lanes products[4] = {};
        for (int64_t c = 0; c < 4; c++) {
            const int64_t place = (begin + (c < count ? c : 0)) * width;
            prefetch(next + place);
            for (int64_t b = 0; b < num_blocks; b++) {
                const Block key = block_of(keys + place, b);
                products[c] += query.blocks[b].one * key.one + query.blocks[b].other * key.other;
            }
        }
        const Lanes sums = sums_of(products);
        for (int64_t c = 0; c < count; c++) scores[begin + c] = sums[4 * c];
    }
}

static void add_weighted(const float *weights, const Number *values, int64_t columns, Head &to, const Number *next) {
    Head sums = to;
    for (int64_t c = 0; c < columns; c++) {
        prefetch(next + c * width);
        for (int64_t b = 0; b < num_blocks; b++) {
            const Block value = block_of(values + c * width, b);
            sums.blocks[b].one += weights[c] * value.one;
            sums.blocks[b].other += weights[c] * value.other;
        }
    }
    to = sums;
}

// Scores to weights that add up to the returned total. There is room for whole vectors of them.
static float weights_of(float *scores, int64_t columns) {
    for (int64_t c = columns; c % lanes; c++) scores[c] = -INFINITY;
    Lanes highest = at<Lanes>(scores), total = {};
    for (int64_t c = lanes; c < columns; c += lanes) {
        const Lanes here = at<Lanes>(scores + c);
        highest = here > highest ? here : highest;
    }
    float top = highest[0];
    for (int64_t i = 1; i < lanes; i++) top = highest[i] > top ? highest[i] : top;
    for (int64_t c = 0; c < columns; c += lanes) {
        const Lanes weights = exponential(at<Lanes>(scores + c) - top);
        std::memcpy(scores + c, &weights, sizeof weights);
        total += weights;
    }
    return sum_of(total);
}

static void attend_head(const Attention &pass, int64_t row, int64_t head, float *scores) {
    const int64_t queries = pass.key_heads * pass.groups, all = queries + 2 * pass.key_heads;
    const int64_t place = (row * pass.key_heads + head) * pass.room, begin = pass.begins[row];
    Number *keys = pass.keys + place * width, *values = pass.values + place * width;
    const Number *heads = pass.heads + row * pass.tokens * all * width;
    const float *cos = pass.cos + row * pass.tokens * width, *sin = pass.sin + row * pass.tokens * width;
    for (int64_t token = 0; token < pass.tokens; token++) {
        const Number *key = heads + (token * all + queries + head) * width, *value = key + pass.key_heads * width;
        write_head(keys + (begin + token) * width, turned(key, cos + token * width, sin + token * width, 1.0f));
        std::memcpy(values + (begin + token) * width, value, width * sizeof(Number));
    }

    const int64_t stem = pass.stem_lengths ? pass.stem_lengths[row] : 0;
    const int64_t stem_place = head * pass.stem_room * width;
    for (int64_t token = 0; token < pass.tokens; token++) {
        const int64_t columns = begin + token + 1;
        for (int64_t group = 0; group < pass.groups; group++) {
            const int64_t which = head * pass.groups + group;
            const Number *asking = heads + (token * all + which) * width;
            const Head query = turned(asking, cos + token * width, sin + token * width, pass.scale);
            scores_of(query, pass.stem_keys + stem_place, stem, scores, keys);
            scores_of(query, keys, columns, scores + stem, values);
            const float total = weights_of(scores, stem + columns);
            Head sums = {};
            add_weighted(scores, pass.stem_values + stem_place, stem, sums, values);
            add_weighted(scores + stem, values, columns, sums, keys + pass.room * width);
            for (int64_t b = 0; b < num_blocks; b++) {
                sums.blocks[b].one /= total;
                sums.blocks[b].other /= total;
            }
            write_head(pass.found + ((row * pass.tokens + token) * queries + which) * width, sums);
        }
    }
}

extern "C" void attend(const Attention *pass) {
    int64_t seen = 0;
    for (int64_t row = 0; row < pass->rows; row++)
        seen += pass->begins[row] + (pass->stem_lengths ? pass->stem_lengths[row] : 0) + pass->tokens;
    const int64_t products = 2 * seen * pass->tokens * pass->key_heads * pass->groups * width;
#pragma omp parallel num_threads(int(pass->threads)) if (products > worth_threads)
    {
        std::vector<float> scores(size_t(pass->stem_room + pass->room + lanes));
#pragma omp for
        for (int64_t item = 0; item < pass->rows * pass->key_heads; item++)
            attend_head(*pass, item / pass->key_heads, item % pass->key_heads, scores.data());
    }
}

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

// ---- the MLP's gate: silu of the first half of each row times the second

struct Gate {
    int64_t rows, size, threads;
    const Number *both;  // (rows, 2 * size)
    Number *gated;       // (rows, size)
};

static inline Lanes silu(Lanes x) {
    const Lanes zero = {}, one = zero + 1.0f, power = exponential(x < zero ? x : zero - x);
    return x * (x < zero ? power : one) / (one + power);
}

extern "C" void gate(const Gate *pass) {
#pragma omp parallel for num_threads(int(pass->threads)) if (16 * pass->rows * pass->size > worth_threads)
    for (int64_t row = 0; row < pass->rows; row++) {
        const Number *both = pass->both + row * 2 * pass->size;
        for (int64_t d = 0; d < pass->size; d += block) {
            const int64_t count = pass->size - d;
            const Block gate = read_some(both + d, count), up = read_some(both + pass->size + d, count);
            const Block gated = {silu(gate.one) * up.one, silu(gate.other) * up.other};
            write_some(pass->gated + row * pass->size + d, gated, count);
        }
    }
}
