// Attention of new tokens over cached keys and values, for decode steps, and the rotary embedding (RoPE) of queries and
// keys, for decode steps and learning.

#include <vector>

#include "vectors.h"

// ---- attention: rotates queries and keys, writes keys and values into the cache, and attends

struct Attention {
    int64_t rows, tokens, key_heads, groups;  // groups: queries per key
    int64_t capacity, prefix_capacity, threads;  // columns of each row, and of the shared prefix
    const Number *heads;          // (rows, tokens, key_heads * groups + 2 * key_heads, width): queries, keys, values
    const float *cos, *sin;       // (rows, tokens, width)
    Number *keys, *values;        // (rows, key_heads, capacity, width)
    const int64_t *begins;        // (rows): the column of a row's first new token; a token sees all columns up to its own
    const Number *prefix_keys, *prefix_values;  // (key_heads, prefix_capacity, width): shared by all rows, before their own columns
    const int64_t *prefix_lengths;  // (rows): how many tokens of the prefix a row sees
    Number *attended;             // (rows, tokens, key_heads * groups, width)
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
static inline float value_of(bf16 number) { return bit_cast<float>(uint32_t(number.bits) << 16); }

// Applies RoPE and a scale. The sines of the first half are already negated: see `rotary_signs` in cache.py.
static inline Head rotated(const Number *from, const float *cos, const float *sin, float scale) {
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

// Loads a column that will be read soon into the CPU's cache.
static inline void prefetch(const Number *column) {
    for (int64_t d = 0; d < width; d += 64 / sizeof(Number)) __builtin_prefetch(column + d);
}

// Scores of a query for consecutive columns, four at a time. next: the columns read after these, to be prefetched.
static void scores_of(const Head &query, const Number *keys, int64_t columns, float *scores, const Number *next) {
    for (int64_t begin = 0; begin < columns; begin += 4) {
        const int64_t count = columns - begin < 4 ? columns - begin : 4;
        Lanes products[4] = {};
        for (int64_t c = 0; c < 4; c++) {
            // Beyond the last column the first of the four is read again, and its score dropped.
            const int64_t column = (begin + (c < count ? c : 0)) * width;
            prefetch(next + column);
            for (int64_t b = 0; b < num_blocks; b++) {
                const Block key = block_of(keys + column, b);
                products[c] += query.blocks[b].first * key.first + query.blocks[b].second * key.second;
            }
        }
        const Lanes sums = sums_of(products);
        for (int64_t c = 0; c < count; c++) scores[begin + c] = sums[4 * c];
    }
}

// Adds values, weighted, to a head. next: the columns read after these, to be prefetched.
static void add_weighted(const float *weights, const Number *values, int64_t columns, Head &to, const Number *next) {
    Head sums = to;
    for (int64_t c = 0; c < columns; c++) {
        prefetch(next + c * width);
        for (int64_t b = 0; b < num_blocks; b++) {
            const Block value = block_of(values + c * width, b);
            sums.blocks[b].first += weights[c] * value.first;
            sums.blocks[b].second += weights[c] * value.second;
        }
    }
    to = sums;
}

// Softmax without its division: scores become weights, and their total is returned. The highest score is subtracted so
// that no exponential overflows. The buffer has space for whole vectors; the surplus is set to -inf, which adds
// nothing to the total in fp32.
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

// Attention of one key head of a row, with the query heads that share it.
static void attend_head(const Attention &pass, int64_t row, int64_t head, float *scores) {
    const int64_t queries = pass.key_heads * pass.groups, all = queries + 2 * pass.key_heads;
    const int64_t first_column = (row * pass.key_heads + head) * pass.capacity, begin = pass.begins[row];
    Number *keys = pass.keys + first_column * width, *values = pass.values + first_column * width;
    const Number *heads = pass.heads + row * pass.tokens * all * width;
    const float *cos = pass.cos + row * pass.tokens * width, *sin = pass.sin + row * pass.tokens * width;
    for (int64_t token = 0; token < pass.tokens; token++) {
        const Number *key = heads + (token * all + queries + head) * width, *value = key + pass.key_heads * width;
        write_head(keys + (begin + token) * width, rotated(key, cos + token * width, sin + token * width, 1.0f));
        std::memcpy(values + (begin + token) * width, value, width * sizeof(Number));
    }

    const int64_t prefix = pass.prefix_lengths ? pass.prefix_lengths[row] : 0;
    const int64_t prefix_begin = head * pass.prefix_capacity * width;
    for (int64_t token = 0; token < pass.tokens; token++) {
        const int64_t columns = begin + token + 1;
        for (int64_t group = 0; group < pass.groups; group++) {
            const int64_t query_head = head * pass.groups + group;
            const Number *query_at = heads + (token * all + query_head) * width;
            const Head query = rotated(query_at, cos + token * width, sin + token * width, pass.scale);
            scores_of(query, pass.prefix_keys + prefix_begin, prefix, scores, keys);
            scores_of(query, keys, columns, scores + prefix, values);
            const float total = weights_of(scores, prefix + columns);
            Head sums = {};
            add_weighted(scores, pass.prefix_values + prefix_begin, prefix, sums, values);
            add_weighted(scores + prefix, values, columns, sums, keys + pass.capacity * width);
            for (int64_t b = 0; b < num_blocks; b++) {
                sums.blocks[b].first /= total;
                sums.blocks[b].second /= total;
            }
            write_head(pass.attended + ((row * pass.tokens + token) * queries + query_head) * width, sums);
        }
    }
}

extern "C" void attend(const Attention *pass) {
    int64_t seen = 0;
    for (int64_t row = 0; row < pass->rows; row++)
        seen += pass->begins[row] + (pass->prefix_lengths ? pass->prefix_lengths[row] : 0) + pass->tokens;
    const int64_t products = 2 * seen * pass->tokens * pass->key_heads * pass->groups * width;
#pragma omp parallel num_threads(int(pass->threads)) if (products > min_parallel_work)
    {
        std::vector<float> scores(size_t(pass->prefix_capacity + pass->capacity + lanes));
#pragma omp for
        for (int64_t item = 0; item < pass->rows * pass->key_heads; item++)
            attend_head(*pass, item / pass->key_heads, item % pass->key_heads, scores.data());
    }
}

// ---- rotate: RoPE of queries or keys, from the layout of a linear layer's output to that of attention's products

struct Rotate {
    int64_t rows, tokens, heads, angle_rows, threads;
    const Number *from;      // (rows, tokens, heads, width)
    const float *cos, *sin;  // (angle_rows, tokens, width): one row of angles for all rows, or one for each
    Number *to;              // (rows, heads, tokens, width)
};

// backward: the same from (rows, heads, tokens, width) to (rows, tokens, heads, width), for gradients.
static void rotate_all(const Rotate &pass, bool backward) {
    const int64_t count = pass.rows * pass.heads;
#pragma omp parallel for num_threads(int(pass.threads)) if (4 * count * pass.tokens * width > min_parallel_work)
    for (int64_t item = 0; item < count; item++) {
        const int64_t row = item / pass.heads, head = item % pass.heads;
        const int64_t angles = pass.angle_rows > 1 ? row * pass.tokens : 0;
        for (int64_t token = 0; token < pass.tokens; token++) {
            const int64_t by_head = (item * pass.tokens + token) * width;
            const int64_t by_token = ((row * pass.tokens + token) * pass.heads + head) * width;
            const int64_t angle = (angles + token) * width;
            const Number *from = pass.from + (backward ? by_head : by_token);
            write_head(pass.to + (backward ? by_token : by_head), rotated(from, pass.cos + angle, pass.sin + angle, 1.0f));
        }
    }
}

extern "C" void rotate(const Rotate *pass) { rotate_all(*pass, false); }
extern "C" void rotate_backward(const Rotate *pass) { rotate_all(*pass, true); }
