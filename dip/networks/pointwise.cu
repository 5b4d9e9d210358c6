// A convolution of single pixels, many channels to as many, on the tensor cores (dip/networks/pointwise.py): what is before
// it, normalisation and activation, and what it makes in one pass, the statistics of that beside; backwards, too.
//
// This comes after kernels.cu, whose helpers it uses. The products are those of a warp, 16 x 16 times 16 x 8. Lane
// 4 * group + four has of the first factor rows `group` and `group + 8`, of the second column `group`, of either the values
// 2 * four, + 1, + 8 and + 9; and of the product those rows in columns 2 * four and + 1. What order is free is such that a
// lane's channels are next to each other: eight are read or written at once.

#if BFLOAT16 && V == 8 && (EMULATED || __CUDA_ARCH__ >= 800)

// A kernel of 8 warps, threadIdx.y, of which one block is on a processor.
#define PRODUCTS(NAME) OF_THREADS(256, 1, NAME)
#define WARPS 8

struct alignas(16) Eight {  // channels, two a word
    unsigned words[4];
};

#if !EMULATED
// Add to c (16 x 8) a (16 x 16) times b (16 x 8).
__device__ __forceinline__ void multiply(float* c, const unsigned* a, const unsigned* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four times 8 x 8 values from shared memory, of which lane 8 * n + i names where row i of number n begins. The lane gets of
// each those in row `group`, number 2 * four and + 1; if they are turned, in column `group`.
template <bool TURNED>
__device__ __forceinline__ void four_of(unsigned* to, const T* row) {
    unsigned from = (unsigned)__cvta_generic_to_shared(row);
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(from) : "memory");
}
#endif

__device__ __forceinline__ float bent(float z, float slope) { return z < 0 ? slope * z : z; }

// Where channel c is among 32 of which those of a lane are to be next to each other: column 2 * four + odd of product w of
// four is channel 8 * four + 2 * w + odd.
__device__ __forceinline__ int place_among(int c) { return c & ~31 | (c & 6) << 2 | (c & 24) >> 2 | c & 1; }

// a and b of each channel (see `line_of`) to shared memory, and the mean after them.
template <int C>
__device__ __forceinline__ void lines_of(
    const float* mean, const float* deviation, const float* scale, const float* offset, float* lines
) {
    int c = threadIdx.y * 32 + threadIdx.x;
    if (c >= C) return;
    line_of(mean, deviation, scale, offset, c, lines[c], lines[C + c]);
    lines[2 * C + c] = mean[c];
}

// Over the pixels of a warp, each lane having the sums of eight channels over some: lanes of group 0 have all.
__device__ __forceinline__ void over_groups(float* sums) {
#pragma unroll
    for (int apart = 4; apart < 32; apart *= 2) EACH sums[v] += __shfl_xor_sync(0xffffffff, sums[v], apart);
}

// ------------------------------------------------------------------ forwards

// y (pixels, C): the products of x, normalised and activated, and the weights (C, C). With `new_mean`, the statistics of y
// for the normalisation that comes next, before which `bias` would have been added. A warp has 16 pixels at a time, and
// those of the next time on their way.
template <int C>
__device__ __forceinline__ void pointwise(
    float* shared, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, T* y, const float* bias, float* new_mean, float* new_deviation, float* running_mean,
    float* running_variance, long long* seen, float* partial, unsigned* ticket, int pixels, float slope, float eps,
    float momentum
) {
    constexpr int CHUNKS = C / 32, ROW = C + 32;  // rows so long, that those of eight lanes are in different banks
    int thread = threadIdx.y * 32 + threadIdx.x, group = threadIdx.x / 4, first = threadIdx.x % 4 * 8;
    T* weights = (T*)shared;
    float* lines = shared + C * ROW / 2;
    Eight next[2][CHUNKS];
    float sums[CHUNKS][V] = {}, squares[CHUNKS][V] = {};
    auto fetch = [&](int tile) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            int p = (tile * WARPS + threadIdx.y) * 16 + 8 * r + group;
            const T* from = x + (long long)(p < pixels ? p : pixels - 1) * C + first;
#pragma unroll
            for (int q = 0; q < CHUNKS; ++q) next[r][q] = *(const Eight*)(from + 32 * q);
        }
    };
    fetch(blockIdx.x);
#pragma unroll
    for (int n = 0; n < C * C / (4 * 32 * WARPS); ++n) {
        int k = 4 * (thread + n * 32 * WARPS);
        float4 four = *(const float4*)(weight + k);
        unsigned* to = (unsigned*)(weights + k / C * ROW + k % C);
        to[0] = packed(four.x, four.y);
        to[1] = packed(four.z, four.w);
    }
    lines_of<C>(mean, deviation, scale, offset, lines);
    __syncthreads();
    // row `group` of the four products for 32 channels, see `place_among`
    const T* own = weights + (group / 2 * 8 + group % 2) * ROW + first;
    int tiles = (pixels + 16 * WARPS - 1) / (16 * WARPS);
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        unsigned z[CHUNKS][2][4];
#pragma unroll
        for (int q = 0; q < CHUNKS; ++q) {
            const float *a = lines + 32 * q + first, *b = a + C;
#pragma unroll
            for (int h = 0; h < 4; ++h) {
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    unsigned word = next[r][q].words[h];
                    z[q][h / 2][h % 2 * 2 + r] = packed(bent(a[2 * h] * low(word) + b[2 * h], slope),
                                                        bent(a[2 * h + 1] * high(word) + b[2 * h + 1], slope));
                }
            }
        }
        if (tile + gridDim.x < tiles) fetch(tile + gridDim.x);
        int p = (tile * WARPS + threadIdx.y) * 16 + group;
        T* to = y + (long long)p * C + first;
#pragma unroll
        for (int u = 0; u < CHUNKS; ++u) {
            float found[4][4] = {};
#pragma unroll
            for (int q = 0; q < CHUNKS; ++q) {
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    Eight those = *(const Eight*)(own + (32 * u + 2 * w) * ROW + 32 * q);
                    multiply(found[w], z[q][0], those.words);
                    multiply(found[w], z[q][1], those.words + 2);
                }
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                if (p + 8 * r >= pixels) continue;
                Eight made;
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    made.words[w] = packed(found[w][2 * r], found[w][2 * r + 1]);
                    float one = low(made.words[w]), other = high(made.words[w]);
                    sums[u][2 * w] += one;
                    sums[u][2 * w + 1] += other;
                    squares[u][2 * w] += one * one;
                    squares[u][2 * w + 1] += other * other;
                }
                *(Eight*)(to + 8 * r * C + 32 * u) = made;
            }
        }
    }
    if (!new_mean) return;
    Known known = known_of(0, bias, running_mean, running_variance, seen, C, thread);
    __syncthreads();
#pragma unroll
    for (int u = 0; u < CHUNKS; ++u) {
        over_groups(sums[u]);
        over_groups(squares[u]);
        float* to = shared + threadIdx.y * 2 * C + 32 * u + first;
        if (group == 0) {
            EACH {
                to[v] = sums[u][v];
                to[C + v] = squares[u][v];
            }
        }
    }
    __syncthreads();
    if (thread < 2 * C) {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS; ++warp) sum += shared[warp * 2 * C + thread];
        partial[blockIdx.x * 2 * C + thread] = sum;
    }
    if (added_up(shared, partial, ticket, 2 * C, ROW / 4))
        conclude(shared, known, 0, bias, new_mean, new_deviation, running_mean, running_variance, seen, C, pixels,
                 pixels, eps, momentum);
}

// ------------------------------------------------------------------ backwards

// back (pixels, C): the gradient of x normalised, from g, that of y; its sums; and each block's part of the gradient of the
// weights, which comes after the sums in `partial`. A block has 64 pixels at a time, and those of the next time on their
// way; a warp has 16 of them and half of the channels of x, then a quarter of the weights' rows and half of their columns.
template <int C>
__device__ __forceinline__ void pointwise_back(
    float* shared, const T* g, const T* x, const float* mean, const float* deviation, const float* scale,
    const float* offset, const float* weight, T* back, float* to_scale, float* to_offset, float* to_bias, float* shares,
    float* partial, unsigned* ticket, int pixels, float slope, int frozen
) {
    constexpr int TILES = 64, HALF = C / 2, CHUNKS = HALF / 32, ROW = C + 8;  // rows so long, for the same reason
    constexpr int READS = TILES * C / V / (32 * WARPS), HIGH = C / 64, WIDE = HALF / 16;
    int thread = threadIdx.y * 32 + threadIdx.x, group = threadIdx.x / 4, first = threadIdx.x % 4 * 8;
    int quarter = threadIdx.y / 2, half = threadIdx.y % 2 * HALF;
    T *weights = (T*)shared, *given = weights + C * ROW, *seen = given + TILES * ROW;
    float* lines = (float*)(seen + TILES * ROW);
    Eight next[READS], next_x[2][CHUNKS];
    float sums[CHUNKS][V] = {}, products[CHUNKS][V] = {}, to_weight[HIGH][2 * WIDE][4] = {};
    auto fetch = [&](int tile) {
#pragma unroll
        for (int n = 0; n < READS; ++n) {
            int k = thread + n * 32 * WARPS, p = tile * TILES + k / (C / V);
            next[n] = Eight{};
            if (p < pixels) next[n] = *(const Eight*)(g + (long long)p * C + k % (C / V) * V);
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            int p = tile * TILES + 16 * quarter + 8 * r + group;
            const T* from = x + (long long)(p < pixels ? p : pixels - 1) * C + half + first;
#pragma unroll
            for (int u = 0; u < CHUNKS; ++u) next_x[r][u] = *(const Eight*)(from + 32 * u);
        }
    };
    fetch(blockIdx.x);
#pragma unroll
    for (int n = 0; n < C * C / (2 * 32 * WARPS); ++n) {
        int k = 2 * (thread + n * 32 * WARPS);
        float2 two = *(const float2*)(weight + k);
        *(unsigned*)(weights + k / C * ROW + place_among(k % C)) = packed(two.x, two.y);
    }
    lines_of<C>(mean, deviation, scale, offset, lines);
    __syncthreads();
    // the rows that the lane names, see `four_of`: of two of the four at a time, one below or beside the other
    int matrix = threadIdx.x / 8, upper = threadIdx.x % 8 + matrix % 2 * 8, right = matrix / 2 * 8;
    int lower = threadIdx.x % 8 + matrix / 2 * 8, beside = matrix % 2 * 8;
    int tiles = (pixels + TILES - 1) / TILES;
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        Eight here[2][CHUNKS];
#pragma unroll
        for (int n = 0; n < READS; ++n) {
            int k = thread + n * 32 * WARPS;
            *(Eight*)(given + k / (C / V) * ROW + k % (C / V) * V) = next[n];
        }
#pragma unroll
        for (int u = 0; u < CHUNKS; ++u) {
            const float *a = lines + half + 32 * u + first, *b = a + C;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                Eight z;
                here[r][u] = next_x[r][u];
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    unsigned word = here[r][u].words[w];
                    z.words[w] = packed(bent(a[2 * w] * low(word) + b[2 * w], slope),
                                        bent(a[2 * w + 1] * high(word) + b[2 * w + 1], slope));
                }
                *(Eight*)(seen + (16 * quarter + 8 * r + group) * ROW + half + 32 * u + first) = z;
            }
        }
        __syncthreads();
        if (tile + gridDim.x < tiles) fetch(tile + gridDim.x);
        // the gradient of z: 16 pixels, and all outputs step by step, by four products for 32 channels
        float found[CHUNKS][4][4] = {};
#pragma unroll
        for (int s = 0; s < C / 16; ++s) {
            unsigned those[4];
            four_of<false>(those, given + (16 * quarter + upper) * ROW + 16 * s + right);
#pragma unroll
            for (int j = 0; j < 2 * CHUNKS; ++j) {
                unsigned two[4];
                four_of<true>(two, weights + (16 * s + upper) * ROW + half + 16 * j + right);
                multiply(found[j / 2][j % 2 * 2], those, two);
                multiply(found[j / 2][j % 2 * 2 + 1], those, two + 2);
            }
        }
        int p = tile * TILES + 16 * quarter + group;
#pragma unroll
        for (int u = 0; u < CHUNKS; ++u) {
            const float *a = lines + half + 32 * u + first, *b = a + C, *middle = b + C;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                if (p + 8 * r >= pixels) continue;
                Eight made;
                float values[V];
                EACH {
                    unsigned word = here[r][u].words[v / 2];
                    float value = v % 2 ? high(word) : low(word), one = found[u][v / 2][2 * r + v % 2];
                    values[v] = a[v] * value + b[v] < 0 ? slope * one : one;
                    sums[u][v] += values[v];
                    products[u][v] += values[v] * (value - middle[v]);
                }
#pragma unroll
                for (int w = 0; w < 4; ++w) made.words[w] = packed(values[2 * w], values[2 * w + 1]);
                *(Eight*)(back + (long long)(p + 8 * r) * C + half + 32 * u + first) = made;
            }
        }
        // that of the weights: all pixels step by step
#pragma unroll
        for (int s = 0; s < TILES / 16; ++s) {
            unsigned those[HIGH][4];
#pragma unroll
            for (int i = 0; i < HIGH; ++i)
                four_of<true>(those[i], given + (16 * s + lower) * ROW + C / 4 * quarter + 16 * i + beside);
#pragma unroll
            for (int j = 0; j < WIDE; ++j) {
                unsigned two[4];
                four_of<true>(two, seen + (16 * s + upper) * ROW + half + 16 * j + right);
#pragma unroll
                for (int i = 0; i < HIGH; ++i) {
                    multiply(to_weight[i][2 * j], those[i], two);
                    multiply(to_weight[i][2 * j + 1], those[i], two + 2);
                }
            }
        }
        __syncthreads();
    }
    float known = deviation_of(deviation, C);
    float* to = partial + gridDim.x * 2 * C + (blockIdx.x * C + C / 4 * quarter + group) * C + half + first / 4;
#pragma unroll
    for (int i = 0; i < HIGH; ++i) {
#pragma unroll
        for (int j = 0; j < 2 * WIDE; ++j) {
            *(float2*)(to + 16 * i * C + 8 * j) = {to_weight[i][j][0], to_weight[i][j][1]};
            *(float2*)(to + (16 * i + 8) * C + 8 * j) = {to_weight[i][j][2], to_weight[i][j][3]};
        }
    }
#pragma unroll
    for (int u = 0; u < CHUNKS; ++u) {
        over_groups(sums[u]);
        over_groups(products[u]);
        float* among = shared + quarter * 2 * C + half + 32 * u + first;
        if (group == 0) {
            EACH {
                among[v] = sums[u][v];
                among[C + v] = products[u][v];
            }
        }
    }
    __syncthreads();
    if (thread < 2 * C) {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < 4; ++n) sum += shared[n * 2 * C + thread];
        partial[blockIdx.x * 2 * C + thread] = sum;
    }
    if (added_up(shared, partial, ticket, 2 * C, ROW / 4))
        conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, to_bias, shares, C, pixels, frozen);
}

#define FORWARDS(C)                                                                                                       \
    PRODUCTS(pointwise_##C)(                                                                                              \
        const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,                   \
        const float* weight, T* y, const float* bias, float* new_mean, float* new_deviation, float* running_mean,         \
        float* running_variance, long long* seen, float* partial, unsigned* ticket, int pixels, float slope, float eps,   \
        float momentum                                                                                                    \
    ) {                                                                                                                   \
        SHARED                                                                                                            \
        pointwise<C>(shared, x, mean, deviation, scale, offset, weight, y, bias, new_mean, new_deviation, running_mean,   \
                     running_variance, seen, partial, ticket, pixels, slope, eps, momentum);                              \
    }
#define BACKWARDS(C)                                                                                                      \
    PRODUCTS(pointwise_back_##C)(                                                                                         \
        const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,       \
        const float* weight, T* back, float* to_scale, float* to_offset, float* to_bias, float* shares, float* partial,   \
        unsigned* ticket, int pixels, float slope, int frozen                                                             \
    ) {                                                                                                                   \
        SHARED                                                                                                            \
        pointwise_back<C>(shared, g, x, mean, deviation, scale, offset, weight, back, to_scale, to_offset, to_bias,       \
                          shares, partial, ticket, pixels, slope, frozen);                                                \
    }
FORWARDS(64)
FORWARDS(128)
BACKWARDS(64)
BACKWARDS(128)

// The sum of so many blocks' parts of a gradient, each of gridDim.x * 128 values.
PRODUCTS(pointwise_sum)(const float* partial, float* to, int blocks) {
    __shared__ float sums[WARPS][128];
    int first = threadIdx.x * 4, thread = threadIdx.y * 32 + threadIdx.x;
    float a = 0, b = 0, c = 0, d = 0;
#pragma unroll 8
    for (int block = threadIdx.y; block < blocks; block += WARPS) {
        float4 found = *(const float4*)(partial + ((long long)block * gridDim.x + blockIdx.x) * 128 + first);
        a += found.x, b += found.y, c += found.z, d += found.w;
    }
    float* own = sums[threadIdx.y] + first;
    own[0] = a, own[1] = b, own[2] = c, own[3] = d;
    __syncthreads();
    if (thread >= 128) return;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < WARPS; ++n) sum += sums[n][thread];
    to[blockIdx.x * 128 + thread] = sum;
}

#endif
