// Numbers, a vector of them at a time. NUMBER is the type in which matrices are multiplied, and WIDTH that of a head, which
// loops of a known length need: `kernels.py` compiles for both.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

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
