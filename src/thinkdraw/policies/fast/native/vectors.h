// Arithmetic on vectors of numbers. `cpu_kernels.py` defines two macros when it compiles. NUMBER is the type in which
// matrices are multiplied; WIDTH is the numbers of an attention head, so that loops have a known length.

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
typedef int32_t Indices __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
constexpr int64_t lanes = 16, block = 2 * lanes;

template <class To, class From>
static inline To bit_cast(const From &from) {
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

static inline Lanes pick(Lanes a, Lanes b, Indices from) {
#ifdef __clang__
    Lanes result;
    for (int64_t i = 0; i < lanes; i++) result[i] = from[i] < lanes ? a[from[i]] : b[from[i] - lanes];
    return result;
#else
    return __builtin_shuffle(a, b, from);
#endif
}

// 32 numbers, in the order in which a Number is read fastest. For bf16, `first` has the even positions and `second` the odd
// ones, because a shift and a mask unpack them all. For floats, the order is that of memory.
struct Block {
    Lanes first, second;
};

static inline Block read_block(const bf16 *numbers) {
    const Bits bits = at<Bits>(numbers);
    return {bit_cast<Lanes>(bits << 16), bit_cast<Lanes>(bits & 0xFFFF0000u)};
}

// Floats beside bf16 numbers are brought into the same even-odd order.
static inline Block read_block(const float *numbers) {
    const Lanes low = at<Lanes>(numbers), high = at<Lanes>(numbers + lanes);
    if (sizeof(Number) == sizeof(float)) return {low, high};
    const Indices even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    return {pick(low, high, even), pick(low, high, even + 1)};
}

// Rounds to the nearest bf16, ties to even; the result is in the upper half of each word.
static inline Bits rounded(Lanes numbers) {
    const Bits bits = bit_cast<Bits>(numbers);
    return bits + 0x7FFF + ((bits >> 16) & 1);
}

static inline void write_block(bf16 *to, const Block &from) {
    const Bits bits = (rounded(from.first) >> 16) | (rounded(from.second) & 0xFFFF0000u);
    std::memcpy(to, &bits, sizeof bits);
}

static inline void write_block(float *to, const Block &from) {
    Block plain = from;
    if (sizeof(Number) != sizeof(float)) {
        const Indices first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
        plain = {pick(from.first, from.second, first), pick(from.first, from.second, first + 8)};
    }
    std::memcpy(to, &plain, sizeof plain);
}

// Reads the first `count` numbers of a block; the rest are zeros.
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

// Sums of four vectors at once, in lanes 0, 4, 8 and 12 of the result.
static inline Lanes sums_of(const Lanes *v) {
    const Indices low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    const Lanes first_two = pick(v[0], v[1], low) + pick(v[0], v[1], low + 8);
    const Lanes last_two = pick(v[2], v[3], low) + pick(v[2], v[3], low + 8);
    const Indices first = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    const Lanes fours = pick(first_two, last_two, first) + pick(first_two, last_two, first + 4);
    const Indices pairs = {2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13};
    const Indices next = {1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14};
    const Lanes pair = fours + pick(fours, fours, pairs);
    return pair + pick(pair, pair, next);
}

// e^x for x <= 0, to a relative error of 2e-7. From Cephes' expf (Moshier), which subtracts log 2 in two parts for
// precision. Below -87 the result would be denormal, and slow.
static inline Lanes exponential(Lanes x) {
    const Lanes lowest = Lanes{} - 87.0f;
    x = x < lowest ? lowest : x;
    const Indices whole = __builtin_convertvector(x * 1.44269504f - 0.5f, Indices);  // e^x = 2^whole * e^rest
    const Lanes times = __builtin_convertvector(whole, Lanes), rest = x - times * 0.693359375f + times * 2.12194440e-4f;
    Lanes power = 1.9875691500e-4f * rest + 1.3981999507e-3f;
    power = power * rest + 8.3334519073e-3f;
    power = power * rest + 4.1665795894e-2f;
    power = power * rest + 1.6666665459e-1f;
    power = power * rest + 5.0000001201e-1f;
    power = power * rest * rest + rest + 1.0f;
    return power * bit_cast<Lanes>((whole + 127) << 23);
}

// Work, in multiplications, from which threads are worth it: waiting for them costs about as much.
constexpr int64_t min_parallel_work = 1 << 15;
