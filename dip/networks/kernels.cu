// Batch normalisation, activation, padding and upsampling in few passes over a picture, for a GPU.
//
// Pictures are in channels-last order: pixel after pixel, all channels of a pixel next to each other. A thread has V
// neighbouring channels of some pixels, which it reads and writes at once: threadIdx.x says which channels, threadIdx.y
// which pixels. V and BFLOAT16 are defined by what compiles this (dip/networks/cuda.py); nothing is included.
//
// Sums are deterministic: each block adds up its pixels, and the block that is done last adds up the blocks in order.

#if BFLOAT16
typedef unsigned short T;
__device__ __forceinline__ float low(unsigned word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high(unsigned word) { return __uint_as_float(word & 0xffff0000); }
__device__ __forceinline__ float wide(T x) { return low(x); }
// To the nearest, ties to even, the first in the lower half.
#if !EMULATED && __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned packed(float first, float second) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}
__device__ __forceinline__ T rounded(float x) { return (T)packed(x, 0); }
#else
__device__ __forceinline__ T rounded(float x) {
    if (x != x) return 0x7fff;
    unsigned bits = __float_as_uint(x);
    return (T)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
__device__ __forceinline__ unsigned packed(float first, float second) {
    return rounded(first) | (unsigned)rounded(second) << 16;
}
#endif
#else
typedef float T;
__device__ __forceinline__ float wide(T x) { return x; }
__device__ __forceinline__ T rounded(float x) { return x; }
#endif

// A thread's channels of a pixel; of bfloat16 two a word, which takes fewer instructions.
#if BFLOAT16 && V > 1
struct alignas(2 * V) Pack {
    unsigned words[V / 2];
};
__device__ __forceinline__ float value(const Pack& pack, int v) {
    return v % 2 ? high(pack.words[v / 2]) : low(pack.words[v / 2]);
}
__device__ __forceinline__ Pack pack_of(const float* from) {
    Pack pack;
#pragma unroll
    for (int w = 0; w < V / 2; ++w) pack.words[w] = packed(from[2 * w], from[2 * w + 1]);
    return pack;
}
#else
struct alignas(sizeof(T) * V) Pack {
    T values[V];
};
__device__ __forceinline__ float value(const Pack& pack, int v) { return wide(pack.values[v]); }
__device__ __forceinline__ Pack pack_of(const float* from) {
    Pack pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.values[v] = rounded(from[v]);
    return pack;
}
#endif

// A kernel of so many threads a block at most, of which so many blocks are to find room on a processor. Where SEVERAL is 1, it
// is a part of one that does the same for several fits at a time (several.cu).
#if SEVERAL
#define OF_THREADS(THREADS, BLOCKS, NAME)                             \
    enum { NAME##_threads = THREADS, NAME##_blocks = BLOCKS };        \
    __device__ __forceinline__ void NAME
#else
#define OF_THREADS(THREADS, BLOCKS, NAME)                             \
    enum { NAME##_threads = THREADS, NAME##_blocks = BLOCKS };        \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME
#endif
#define KERNEL(BLOCKS, NAME) OF_THREADS(512, BLOCKS, NAME)
#define EACH for (int v = 0; v < V; ++v)
// So many pixels of a thread, number n, which are read before the first is worked on, so that all are on their way at a
// time. (Of a loop that is unrolled only, one is read after the other.)
#define PIXELS(COUNT) _Pragma("unroll") for (int n = 0; n < COUNT; ++n)

__device__ __forceinline__ int thread_of_block() { return threadIdx.y * blockDim.x + threadIdx.x; }

struct Sum {
    float of[V];
};

__device__ __forceinline__ Pack packed_at(const T* from) { return *(const Pack*)from; }

__device__ __forceinline__ void load(const T* from, float* to) {
    Pack pack = packed_at(from);
    EACH to[v] = value(pack, v);
}

__device__ __forceinline__ void add(const T* from, float weight, float* to) {
    Pack pack = packed_at(from);
    EACH to[v] += weight * value(pack, v);
}

__device__ __forceinline__ void store(T* to, const float* from) { *(Pack*)to = pack_of(from); }

// ------------------------------------------------------------------ the geometry

// What a line of a padded picture shows: a line of the picture, -1 for none. Padded is with zeros, by reflection if
// `reflect` is 1, or with the border pixels repeated if it is 2.
__device__ __forceinline__ int shown(int line, int size, int pad, int reflect) {
    int inside = line - pad;
    if (inside >= 0 && inside < size) return inside;
    if (!reflect) return -1;
    if (reflect == 2) return inside < 0 ? 0 : size - 1;
    return inside < 0 ? -inside : 2 * (size - 1) - inside;
}

// Which line of a padded picture shows a line, number 0, 1 or 2 of those that do; -1 for none.
__device__ __forceinline__ int showing(int line, int number, int size, int pad, int reflect) {
    if (number == 0) return line + pad;
    if (!reflect) return -1;
    if (number == 1) return line >= 1 && line <= pad ? pad - line : -1;
    return line <= size - 2 && line >= size - 1 - pad ? 2 * (size - 1) - line + pad : -1;
}

// Which other line of a padded picture shows a line, its own if none does. Of pad 1 there is one at most, if size > 3.
__device__ __forceinline__ int again(int line, int size, int reflect) {
    if (reflect == 2) return line == 0 ? 0 : line == size - 1 ? size + 1 : line + 1;
    if (reflect && line == 1) return 0;
    return reflect && line == size - 2 ? size + 1 : line + 1;
}

// Of the gradient g of a padded picture what comes to pixel (i, j) of the picture from other places than its own.
__device__ __noinline__ Sum folded_there(
    const T* g, int i, int j, int height, int width, int channels, int pad, int reflect, float weight
) {
    Sum sum = {};
    int broad = width + 2 * pad;
#pragma unroll 1
    for (int a = 0; a < 3; ++a) {
        int row = showing(i, a, height, pad, reflect);
        if (row < 0) continue;
#pragma unroll 1
        for (int b = 0; b < 3; ++b) {
            int column = showing(j, b, width, pad, reflect);
            if (column >= 0 && (a || b)) add(g + ((long long)row * broad + column) * channels, weight, sum.of);
        }
    }
    return sum;
}

// Add it.
__device__ __forceinline__ void folded_in(
    const T* g, int i, int j, int height, int width, int channels, int pad, int reflect, float weight, float* sum
) {
    if (!pad || (i > pad && i < height - 1 - pad && j > pad && j < width - 1 - pad)) return;
    if (pad == 1 && height > 3 && width > 3) {  // the usual case: all at once
        int broad = width + 2, row = i + 1, column = j + 1;
        int other = again(i, height, reflect), beside = again(j, width, reflect);
        float rows = other == row ? 0.0f : weight, columns = beside == column ? 0.0f : weight;
        add(g + ((long long)other * broad + column) * channels, rows, sum);
        add(g + ((long long)row * broad + beside) * channels, columns, sum);
        add(g + ((long long)other * broad + beside) * channels, columns == 0 ? 0.0f : rows, sum);
        return;
    }
    Sum there = folded_there(g, i, j, height, width, channels, pad, reflect, weight);
    EACH sum[v] += there.of[v];
}

// Weight of line 2 * line - 1 + number of the enlarged picture in the gradient of a line; bilinear or nearest.
__device__ __forceinline__ float weight_of(int line, int number, int size, int bilinear) {
    if (!bilinear) return number == 1 || number == 2 ? 1.0f : 0.0f;
    if (number == 0) return line > 0 ? 0.25f : 0.0f;
    if (number == 3) return line < size - 1 ? 0.25f : 0.0f;
    bool border = number == 1 ? line == 0 : line == size - 1;  // takes the missing neighbour's weight too
    return border ? 1.0f : 0.75f;
}

__device__ __forceinline__ int held(int line, int size) { return line < 0 ? 0 : line >= size ? size - 1 : line; }

// Add the mean of the pixels around (i, j) by what they weigh in the sum of squares of the enlarged picture:
// (3, 10, 3) / 16 along rows and columns, the border repeated; for nearest, the pixel.
__device__ __forceinline__ void weighed(
    const T* x, int i, int j, int height, int width, int channels, int bilinear, float* sum
) {
    if (!bilinear) {
        add(x + ((long long)i * width + j) * channels, 1.0f, sum);
        return;
    }
#pragma unroll
    for (int a = -1; a < 2; ++a) {
#pragma unroll
        for (int b = -1; b < 2; ++b) {
            float weight = (a ? 0.1875f : 0.625f) * (b ? 0.1875f : 0.625f);
            add(x + ((long long)held(i + a, height) * width + held(j + b, width)) * channels, weight, sum);
        }
    }
}

// Weight of a line of the padded enlarged picture in the gradient of line i of the small one.
__device__ __forceinline__ float weight_there(int line, int i, int size, int pad, int reflect, int bilinear) {
    if (line < 0 || line >= 2 * size + 2 * pad) return 0;
    int number = shown(line, 2 * size, pad, reflect) - (2 * i - 1);
    return number < 0 || number > 3 ? 0.0f : weight_of(i, number, size, bilinear);
}

// Add to `sum` the gradient of pixel (i, j) of a picture that is enlarged and padded: g's, wherever it went.
__device__ __forceinline__ void brought_down(
    const T* g, int i, int j, int height, int width, int channels, int pad, int reflect, int bilinear, float* sum
) {
    int broad = 2 * width + 2 * pad, tall = 2 * height + 2 * pad, row = 2 * i - 1 + pad, column = 2 * j - 1 + pad;
    if (i > pad && i < height - 1 - pad && j > pad && j < width - 1 - pad) {
        const T* corner = g + ((long long)row * broad + column) * channels;
#pragma unroll
        for (int a = 0; a < 4; ++a) {
#pragma unroll
            for (int b = 0; b < 4; ++b) {
                bool middle_row = a == 1 || a == 2, middle_column = b == 1 || b == 2;
                if (!bilinear && !(middle_row && middle_column)) continue;
                float weight = !bilinear ? 1.0f : (middle_row ? 0.75f : 0.25f) * (middle_column ? 0.75f : 0.25f);
                add(corner + ((long long)a * broad + b) * channels, weight, sum);
            }
        }
    } else if (pad <= 1) {  // what is shown twice is two lines further out at most
        float columns[8];
#pragma unroll
        for (int b = 0; b < 8; ++b) columns[b] = weight_there(column - 2 + b, j, width, pad, reflect, bilinear);
#pragma unroll 2
        for (int a = 0; a < 8; ++a) {
            float weight = weight_there(row - 2 + a, i, height, pad, reflect, bilinear);
            const T* line = g + (long long)held(row - 2 + a, tall) * broad * channels;
#pragma unroll
            for (int b = 0; b < 8; ++b)
                add(line + (long long)held(column - 2 + b, broad) * channels, weight * columns[b], sum);
        }
    } else {
#pragma unroll 1
        for (int a = 0; a < 4; ++a) {
#pragma unroll 1
            for (int b = 0; b < 4; ++b) {
                float weight = weight_of(i, a, height, bilinear) * weight_of(j, b, width, bilinear);
                if (weight == 0) continue;
                int row = 2 * i - 1 + a, column = 2 * j - 1 + b;
                add(g + ((long long)(row + pad) * broad + column + pad) * channels, weight, sum);
                folded_in(g, row, column, 2 * height, 2 * width, channels, pad, reflect, weight, sum);
            }
        }
    }
}

// ------------------------------------------------------------------ sums

// Take a ticket and return how many were taken before; what those who did had written is there to be read.
__device__ __forceinline__ unsigned taken_before(unsigned* ticket) {
#if EMULATED || __CUDA_ARCH__ < 700
    __threadfence();
    unsigned before = atomicInc(ticket, gridDim.x - 1);
    __threadfence();
    return before;
#else
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before) : "l"(ticket), "r"(gridDim.x - 1) : "memory");
    return before;
#endif
}

// Add up the blocks' sums, `all` of each in `partial`. In the block that is done last, true is returned and shared memory
// begins with the sums; it has to have room for `room` times as many. In the others, false.
__device__ bool added_up(float* shared, const float* partial, unsigned* ticket, int all, int room) {
    __shared__ int last;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y;
    __syncthreads();
    if (thread == 0) last = taken_before(ticket) == gridDim.x - 1;
    __syncthreads();
    if (!last) return false;
    // some threads for each value, or each four, so that many are on their way at a time
    int wide = all % 4 ? 1 : 4, columns = all / wide, groups = threads / columns;
    groups = groups < 1 ? 1 : groups > room ? (room < 1 ? 1 : room) : groups;
    for (int k = thread; k < columns * groups; k += threads) {
        int column = k % columns * wide;
        float a = 0, b = 0, c = 0, d = 0;
        if (wide == 4) {
#pragma unroll 8
            for (int block = k / columns; block < gridDim.x; block += groups) {
                float4 found = __ldcg((const float4*)(partial + block * all + column));
                a += found.x, b += found.y, c += found.z, d += found.w;
            }
            shared[k / columns * all + column + 1] = b;
            shared[k / columns * all + column + 2] = c;
            shared[k / columns * all + column + 3] = d;
        } else {
#pragma unroll 8
            for (int block = k / columns; block < gridDim.x; block += groups) a += __ldcg(partial + block * all + column);
        }
        shared[k / columns * all + column] = a;
    }
    __syncthreads();
    for (int k = thread; k < all; k += threads) {
        float sum = 0;
        for (int group = 0; group < groups; ++group) sum += shared[group * all + k];
        shared[k] = sum;
    }
    __syncthreads();
    return true;
}

// Add S sums of each channel over all blocks. In the block that is done last, true is returned and shared memory begins
// with the sums, one after the other for all channels; in the others, false. Two at a time go there, which takes
// blockDim.y * 2 * channels floats, or S * channels in the end; of few channels some threads share a sum.
template <int S>
__device__ bool total(float* shared, const float (*sums)[V], float* partial, unsigned* ticket, int channels) {
    int all = S * channels, both = 2 * channels;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y;
    int groups = threads / both < 16 ? threads / both : 16;
#pragma unroll
    for (int s = 0; s < S; s += 2) {
        if (s) __syncthreads();
        float* own = shared + threadIdx.y * both + threadIdx.x * V;
        EACH {
            own[v] = sums[s][v];
            own[channels + v] = sums[s + 1][v];
        }
        __syncthreads();
        int rows = blockDim.y;
        if (groups > 1) {
            float sum = 0;
            if (thread < groups * both) {
#pragma unroll 8
                for (int row = thread / both; row < blockDim.y; row += groups) sum += shared[row * both + thread % both];
            }
            __syncthreads();
            if (thread < groups * both) shared[thread] = sum;
            __syncthreads();
            rows = groups;
        }
        for (int k = thread; k < both; k += threads) {
            float sum = 0;
#pragma unroll 8
            for (int row = 0; row < rows; ++row) sum += shared[row * both + k];
            if (S == 2 && gridDim.x == 1)
                shared[k] = sum;  // which only this thread has read
            else
                partial[blockIdx.x * all + s * channels + k] = sum;
        }
    }
    if (S == 2 && gridDim.x == 1) {
        __syncthreads();
        return true;
    }
    return added_up(shared, partial, ticket, all, blockDim.y * both / all);
}

// What is known of a thread's first channel before there are any sums. Whoever takes the sums asks for it before he waits
// for them: what is read after something was written is read late.
struct Known {
    float x, bias, mean, variance;
    long long seen;
};

__device__ __forceinline__ Known known_of(
    const T* x, const float* bias, const float* running_mean, const float* running_variance, const long long* seen,
    int channels, int c
) {
    c = c < channels ? c : channels - 1;
    return {x ? wide(x[c]) : 0.0f, bias ? bias[c] : 0.0f, running_mean[c], running_variance[c], seen ? *seen : 0};
}

// From sums over x - x of the first pixel, or over x without one, to the statistics; the running ones take their share.
__device__ void conclude(
    const float* shared, Known known, const T* x, const float* bias, float* mean, float* deviation,
    float* running_mean, float* running_variance, long long* seen, int channels, float pixels, float count, float eps,
    float momentum
) {
    int thread = thread_of_block();
    if (seen && thread == 0) *seen = known.seen + 1;
    for (int c = thread; c < channels; c += blockDim.x * blockDim.y) {
        if (c != thread) known = known_of(x, bias, running_mean, running_variance, 0, channels, c);
        float apart = shared[c] / pixels;
        float variance = shared[channels + c] / pixels - apart * apart;
        variance = variance < 0 ? 0 : variance;  // but NaN stays
        float middle = known.x + apart;
        mean[c] = middle;
        deviation[c] = 1.0f / sqrtf(variance + eps);
        running_mean[c] = known.mean + momentum * (middle + known.bias - known.mean);
        running_variance[c] = known.variance + momentum * (variance * (count / (count - 1)) - known.variance);
    }
}

// Mean and 1 / deviation of each channel of x (pixels, channels).
__device__ __forceinline__ void moments_of(
    float* shared, const T* x, const float* bias, float* mean, float* deviation, float* running_mean,
    float* running_variance, long long* seen, float* partial, unsigned* ticket, int pixels, int channels, float eps,
    float momentum
) {
    float first[V], sums[2][V] = {};
    const T* own = x + threadIdx.x * V;
    load(own, first);
    int stride = gridDim.x * blockDim.y;
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels; p += 4 * stride) {
        Pack found[4] = {};
        PIXELS(4) if (p + n * stride < pixels) found[n] = packed_at(own + (long long)(p + n * stride) * channels);
        PIXELS(4) {
            if (p + n * stride >= pixels) break;
            EACH {
                float apart = value(found[n], v) - first[v];
                sums[0][v] += apart;
                sums[1][v] += apart * apart;
            }
        }
    }
    Known known = known_of(x, bias, running_mean, running_variance, seen, channels, thread_of_block());
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude(shared, known, x, bias, mean, deviation, running_mean, running_variance, seen, channels, pixels,
                 pixels, eps, momentum);
}

KERNEL(2, moments)(
    const T* x, const float* bias, float* mean, float* deviation, float* running_mean, float* running_variance,
    long long* seen, float* partial, unsigned* ticket, int pixels, int channels, float eps, float momentum
) {
    SHARED
    moments_of(shared, x, bias, mean, deviation, running_mean, running_variance, seen, partial, ticket, pixels,
               channels, eps, momentum);
}

// Those of x (images, height, width, channels) enlarged twofold.
KERNEL(1, moments_enlarged)(
    const T* x, float* mean, float* deviation, float* running_mean, float* running_variance, long long* seen,
    float* partial, unsigned* ticket, int images, int height, int width, int channels, int bilinear, float eps,
    float momentum
) {
    SHARED
    float first[V], sums[2][V] = {};
    const T* own = x + threadIdx.x * V;
    load(own, first);
    for (int line = blockIdx.x; line < images * height; line += gridDim.x) {
        const T* image = own + (long long)(line / height) * height * width * channels;
        int i = line % height;
        for (int j = threadIdx.y; j < width; j += blockDim.y) {
            float here[V], around[V] = {};
            load(image + ((long long)i * width + j) * channels, here);
            weighed(image, i, j, height, width, channels, bilinear, around);
            EACH {
                sums[0][v] += here[v] - first[v];
                sums[1][v] += (here[v] - first[v]) * (around[v] - first[v]);
            }
        }
    }
    float pixels = (float)images * height * width;
    Known known = known_of(x, 0, running_mean, running_variance, seen, channels, thread_of_block());
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude(shared, known, x, 0, mean, deviation, running_mean, running_variance, seen, channels, pixels,
                 4 * pixels, eps, momentum);
}

// ------------------------------------------------------------------ forwards

// a * x + b of a channel is its normalisation; without a mean, x is left as it is.
__device__ __forceinline__ void line_of(
    const float* mean, const float* deviation, const float* scale, const float* offset, int c, float& a, float& b
) {
    a = mean ? scale[c] * deviation[c] : 1.0f;
    b = mean ? offset[c] - mean[c] * a : 0.0f;
}

// x normalised and activated.
__device__ __forceinline__ Pack normalised(const Pack& x, const float* a, const float* b, float slope) {
    float z[V];
    EACH {
        z[v] = a[v] * value(x, v) + b[v];
        z[v] = z[v] < 0 ? slope * z[v] : z[v];
    }
    return pack_of(z);
}

// z (images, height + 2 pad, width + 2 pad, channels): x normalised, activated, padded. A block has a row at a time.
KERNEL(2, normalise)(
    const T* x, const float* mean, const float* deviation, const float* scale, const float* offset, T* z, int lines,
    int height, int width, int channels, int pad, int reflect, float slope
) {
    float a[V], b[V];
    int first = threadIdx.x * V, tall = height + 2 * pad, broad = width + 2 * pad;
    EACH line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
    for (int line = blockIdx.x; line < lines; line += gridDim.x) {
        int i = shown(line % tall, height, pad, reflect);
        const T* from = x + ((long long)(line / tall) * height + held(i, height)) * width * channels + first;
        T* to = z + (long long)line * broad * channels + first;
        for (int start = threadIdx.y; start < width; start += 4 * blockDim.y) {
            Pack found[4] = {};
            PIXELS(4) {
                int j = start + n * blockDim.y;
                if (j < width) found[n] = packed_at(from + (long long)j * channels);
            }
            PIXELS(4) {
                int j = start + n * blockDim.y;
                Pack made = i < 0 ? Pack{} : normalised(found[n], a, b, slope);
                if (j < width) *(Pack*)(to + (long long)(j + pad) * channels) = made;
            }
        }
        for (int k = threadIdx.y; k < 2 * pad; k += blockDim.y) {
            int column = k < pad ? k : width + k, j = shown(column, width, pad, reflect);
            Pack made = i < 0 || j < 0 ? Pack{} : normalised(packed_at(from + (long long)j * channels), a, b, slope);
            *(Pack*)(to + (long long)column * channels) = made;
        }
    }
}

// What `moments` and `normalise` do with a picture that one block has all of.
KERNEL(1, normalise_alone)(
    const T* x, const float* bias, float* mean, float* deviation, float* running_mean, float* running_variance,
    long long* seen, const float* scale, const float* offset, T* z, int images, int height, int width, int channels,
    int pad, int reflect, float slope, float eps, float momentum
) {
    SHARED
    moments_of(shared, x, bias, mean, deviation, running_mean, running_variance, seen, 0, 0, images * height * width,
               channels, eps, momentum);
    __syncthreads();
    float a[V], b[V];
    int first = threadIdx.x * V, tall = height + 2 * pad, broad = width + 2 * pad, places = images * tall * broad;
    EACH line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
    for (int start = threadIdx.y; start < places; start += 4 * blockDim.y) {
        Pack found[4] = {};
        bool there[4];
        PIXELS(4) {
            int p = start + n * blockDim.y, line = p / broad;
            int i = shown(line % tall, height, pad, reflect), j = shown(p % broad, width, pad, reflect);
            there[n] = p < places && i >= 0 && j >= 0;
            if (there[n]) found[n] = packed_at(x + ((line / tall * height + i) * width + j) * channels + first);
        }
        PIXELS(4) {
            int p = start + n * blockDim.y;
            Pack made = there[n] ? normalised(found[n], a, b, slope) : Pack{};
            if (p < places) *(Pack*)(z + p * channels + first) = made;
        }
    }
}

// z (images, 2 height + 2 pad, 2 width + 2 pad, all): first x enlarged and normalised, then `beside` (images, 2 height,
// 2 width, few), then zeros; padded. A block has a row.
KERNEL(1, enlarge)(
    const T* x, const float* mean, const float* deviation, const float* scale, const float* offset, const T* beside, T* z,
    int height, int width, int channels, int few, int all, int pad, int reflect, int bilinear
) {
    int first = threadIdx.x * V, tall = 2 * height + 2 * pad, broad = 2 * width + 2 * pad;
    int i = shown(blockIdx.x % tall, 2 * height, pad, reflect), image = blockIdx.x / tall;
    float a[V] = {}, b[V] = {};
    if (first < channels) EACH line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
    int k = i / 2, near = bilinear ? held(i % 2 ? k + 1 : k - 1, height) : k;  // the row that i is next to
    const T* upper = x + ((long long)image * height + k) * width * channels + first;
    const T* lower = x + ((long long)image * height + near) * width * channels + first;
    T* to = z + (long long)blockIdx.x * broad * all + first;
    for (int column = threadIdx.y; column < broad; column += blockDim.y) {
        float here[V] = {};
        int j = shown(column, 2 * width, pad, reflect);
        if (i >= 0 && j >= 0) {
            if (first < channels) {
                long long l = j / 2;
                if (bilinear) {
                    long long next = held(j % 2 ? l + 1 : l - 1, width);
                    add(upper + l * channels, 0.5625f, here);
                    add(upper + next * channels, 0.1875f, here);
                    add(lower + l * channels, 0.1875f, here);
                    add(lower + next * channels, 0.0625f, here);
                } else {
                    load(upper + l * channels, here);
                }
                EACH here[v] = a[v] * here[v] + b[v];
            } else {
                const T* there = beside + (((long long)image * 2 * height + i) * 2 * width + j) * few;
                EACH {
                    int c = first + v - channels;
                    if (c < few) here[v] = wide(there[c]);
                }
            }
        }
        store(to + (long long)column * all, here);
    }
}

// ------------------------------------------------------------------ backwards

// 1 / deviation of a thread's first channel, asked for in time, as `known_of`; 0 where there is none.
__device__ __forceinline__ float deviation_of(const float* deviation, int channels) {
    int c = thread_of_block();
    return deviation && c < channels ? deviation[c] : 0.0f;
}

// From the sums of g and of g * (x - mean), to the gradients of scale, offset and the bias that x would have had added;
// `shares` are those sums as they enter the gradient of x. `known` is what `deviation_of` has returned.
__device__ void conclude_gradients(
    const float* shared, float known, const float* deviation, const float* scale, float* to_scale, float* to_offset,
    float* to_bias, float* shares, int channels, float count, int frozen
) {
    int thread = thread_of_block();
    for (int c = thread; c < channels; c += blockDim.x * blockDim.y) {
        float own = c == thread ? known : deviation[c], a = frozen ? scale[c] * own : 0.0f;
        float sum = shared[c], along = own * shared[channels + c];
        to_offset[c] = sum;
        to_scale[c] = along;
        if (to_bias) to_bias[c] = frozen ? a * sum : 0.0f;
        shares[c] = frozen ? 0.0f : sum / count;
        shares[channels + c] = frozen ? 0.0f : own * along / count;
    }
}

// Over the pixels of line i of x, two at a time: `each` is given the column, the gradient of the pixel, from that of the
// padded picture g with `all` channels, and what x has there, which is 0 without an x. `own` is where the line begins.
template <class Each>
__device__ __forceinline__ void over_line(
    const T* g, const T* own, int i, int height, int width, int channels, int all, int pad, int reflect, Each each
) {
    const T* from = g + ((long long)(i + pad) * (width + 2 * pad) + pad) * all;
    for (int start = threadIdx.y; start < width; start += 2 * blockDim.y) {
        Pack found[2] = {}, here[2] = {};
        PIXELS(2) {
            int j = start + n * blockDim.y;
            if (j >= width) continue;
            found[n] = packed_at(from + (long long)j * all);
            if (own) here[n] = packed_at(own + (long long)j * channels);
        }
        PIXELS(2) {
            int j = start + n * blockDim.y;
            if (j >= width) break;
            float back[V];
            EACH back[v] = value(found[n], v);
            folded_in(g, i, j, height, width, all, pad, reflect, 1.0f, back);
            each(j, back, here[n]);
        }
    }
}

// The gradient of a pixel before the activation, from that after it, and into the sums of it and of it * (x - mean).
__device__ __forceinline__ void into_sums(
    float* back, const Pack& here, const float* a, const float* b, float slope, const float* middle, float (*sums)[V]
) {
    EACH {
        float seen = value(here, v);
        back[v] = a[v] * seen + b[v] < 0 ? slope * back[v] : back[v];
        sums[0][v] += back[v];
        sums[1][v] += back[v] * (seen - middle[v]);
    }
}

// The gradient of x from that after the activation, see `tilt_of`.
__device__ __forceinline__ void from_sums(
    float* back, const Pack& here, const float* a, const float* b, float slope, const float* lift, const float* tilt
) {
    EACH {
        float seen = value(here, v);
        back[v] = a[v] * seen + b[v] < 0 ? slope * back[v] : back[v];
        back[v] = a[v] * back[v] + (lift[v] - tilt[v] * seen);
    }
}

// The sums that the backward pass of `normalise` needs.
KERNEL(1, gather)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    float* to_scale, float* to_offset, float* to_bias, float* shares, float* partial, unsigned* ticket, int images,
    int height, int width, int channels, int pad, int reflect, float slope, int frozen
) {
    SHARED
    float a[V], b[V], middle[V], sums[2][V] = {};
    int first = threadIdx.x * V, tall = height + 2 * pad, broad = width + 2 * pad;
    EACH {
        line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
        middle[v] = mean[first + v];
    }
    for (int line = blockIdx.x; line < images * height; line += gridDim.x) {
        const T* image = g + (long long)(line / height) * tall * broad * channels + first;
        const T* own = x + (long long)line * width * channels + first;
        auto each = [&](int j, float* back, const Pack& here) { into_sums(back, here, a, b, slope, middle, sums); };
        over_line(image, own, line % height, height, width, channels, channels, pad, reflect, each);
    }
    float known = deviation_of(deviation, channels);
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, to_bias, shares, channels,
                           (float)images * height * width, frozen);
}

// The gradient of x is a * (that of what is normalised) + lift - tilt * x; without a mean there is no normalisation.
__device__ __forceinline__ void tilt_of(
    const float* mean, const float* shares, int channels, int c, float a, float& lift, float& tilt
) {
    tilt = mean ? a * shares[channels + c] : 0.0f;
    lift = mean ? tilt * mean[c] - a * shares[c] : 0.0f;
}

// The gradient of x. Without a mean there was only padding. g has `all` channels, those of x from number `skipped` on.
KERNEL(1, spread)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* shares, T* to_x, int lines, int height, int width, int channels, int all, int skipped, int pad,
    int reflect, float slope
) {
    float a[V], b[V], lift[V], tilt[V];
    int first = threadIdx.x * V, tall = height + 2 * pad, broad = width + 2 * pad;
    EACH {
        line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
        tilt_of(mean, shares, channels, first + v, a[v], lift[v], tilt[v]);
    }
    for (int line = blockIdx.x; line < lines; line += gridDim.x) {
        const T* image = g + (long long)(line / height) * tall * broad * all + skipped + first;
        long long own = (long long)line * width * channels + first;
        auto each = [&](int j, float* back, const Pack& here) {
            from_sums(back, here, a, b, slope, lift, tilt);
            store(to_x + own + (long long)j * channels, back);
        };
        over_line(image, mean ? x + own : 0, line % height, height, width, channels, all, pad, reflect, each);
    }
}

struct Places {
    int images, height, width, channels, pad, reflect;
};

// The same over all pixels of x, of which the block has all; the number of the pixel in place of the column.
template <class Each>
__device__ __forceinline__ void over_pixels(const T* g, const T* x, Places of, Each each) {
    int tall = of.height + 2 * of.pad, broad = of.width + 2 * of.pad, pixels = of.images * of.height * of.width;
    for (int start = threadIdx.y; start < pixels; start += 2 * blockDim.y) {
        Pack found[2] = {}, here[2] = {};
        PIXELS(2) {
            int p = start + n * blockDim.y, line = p / of.width;
            if (p >= pixels) continue;
            int row = line / of.height * tall + line % of.height + of.pad, column = p % of.width + of.pad;
            found[n] = packed_at(g + (row * broad + column) * of.channels + threadIdx.x * V);
            here[n] = packed_at(x + p * of.channels + threadIdx.x * V);
        }
        PIXELS(2) {
            int p = start + n * blockDim.y, line = p / of.width;
            if (p >= pixels) break;
            float back[V];
            EACH back[v] = value(found[n], v);
            const T* image = g + line / of.height * tall * broad * of.channels + threadIdx.x * V;
            folded_in(image, line % of.height, p % of.width, of.height, of.width, of.channels, of.pad, of.reflect, 1.0f,
                      back);
            each(p, back, here[n]);
        }
    }
}

// What `gather` and `spread` do with a picture that one block has all of.
KERNEL(1, back_alone)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    float* to_scale, float* to_offset, float* to_bias, float* shares, T* to_x, int images, int height, int width,
    int channels, int pad, int reflect, float slope, int frozen
) {
    SHARED
    float a[V], b[V], middle[V], sums[2][V] = {};
    int first = threadIdx.x * V;
    EACH {
        line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
        middle[v] = mean[first + v];
    }
    Places places = {images, height, width, channels, pad, reflect};
    auto add_up = [&](int p, float* back, const Pack& here) { into_sums(back, here, a, b, slope, middle, sums); };
    over_pixels(g, x, places, add_up);
    float known = deviation_of(deviation, channels);
    total<2>(shared, sums, 0, 0, channels);
    conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, to_bias, shares, channels,
                       (float)images * height * width, frozen);
    __syncthreads();
    float lift[V], tilt[V];
    EACH tilt_of(mean, shares, channels, first + v, a[v], lift[v], tilt[v]);
    auto leave = [&](int p, float* back, const Pack& here) {
        from_sums(back, here, a, b, slope, lift, tilt);
        store(to_x + p * channels + first, back);
    };
    over_pixels(g, x, places, leave);
}

// The gradient of what `enlarge` has enlarged and normalised, brought to the size of x, and its sums.
KERNEL(1, gather_enlarged)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, T* back_small,
    float* to_scale, float* to_offset, float* shares, float* partial, unsigned* ticket, int images, int height,
    int width, int channels, int all, int pad, int reflect, int bilinear, int frozen
) {
    SHARED
    float middle[V], sums[2][V] = {};
    int first = threadIdx.x * V, tall = 2 * height + 2 * pad, broad = 2 * width + 2 * pad;
    EACH middle[v] = mean[first + v];
    for (int line = blockIdx.x; line < images * height; line += gridDim.x) {
        const T* image = g + (long long)(line / height) * tall * broad * all + first;
        int i = line % height;
        for (int j = threadIdx.y; j < width; j += blockDim.y) {
            float here[V], back[V] = {};
            long long at = ((long long)line * width + j) * channels + first;
            load(x + at, here);
            brought_down(image, i, j, height, width, all, pad, reflect, bilinear, back);
            store(back_small + at, back);
            EACH {
                sums[0][v] += back[v];
                sums[1][v] += back[v] * (here[v] - middle[v]);
            }
        }
    }
    float known = deviation_of(deviation, channels);
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, 0, shares, channels,
                           4.0f * images * height * width, frozen);
}

// The gradient of x from that, in place of it.
KERNEL(1, spread_enlarged)(
    T* back_small, const T* x, const float* mean, const float* deviation, const float* scale, const float* shares,
    int lines, int height, int width, int channels, int bilinear
) {
    float a[V], lift[V], tilt[V];
    int first = threadIdx.x * V;
    EACH {
        a[v] = scale[first + v] * deviation[first + v];
        tilt_of(mean, shares, channels, first + v, 4 * a[v], lift[v], tilt[v]);
    }
    for (int line = blockIdx.x; line < lines; line += gridDim.x) {
        const T* image = x + (long long)(line / height) * height * width * channels + first;
        for (int j = threadIdx.y; j < width; j += blockDim.y) {
            float back[V], around[V] = {};
            T* at = back_small + ((long long)line * width + j) * channels + first;
            load(at, back);
            weighed(image, line % height, j, height, width, channels, bilinear, around);
            EACH back[v] = a[v] * back[v] + (lift[v] - tilt[v] * around[v]);
            store(at, back);
        }
    }
}

// ------------------------------------------------------------------ a convolution of one pixel to few channels

// The weights (FEW, channels) that a thread needs.
template <int FEW>
__device__ __forceinline__ void weights_of(const float* weight, int channels, float (*own)[V]) {
#pragma unroll
    for (int k = 0; k < FEW; ++k) EACH own[k][v] = weight[k * channels + threadIdx.x * V + v];
}

// Add up the sums of four pixels over the threads along x. Of four threads or more, each passes on half of what it has
// and keeps the other half, so that some have a pixel each, whose number is returned, its sums coming first; of fewer
// the first thread has all. Where a thread has nothing of its own, -1 is returned.
template <int FEW>
__device__ __forceinline__ int together(float (*sum)[FEW]) {
    int quarter = blockDim.x / 4;
    if (!quarter) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
            for (int k = 0; k < FEW; ++k)
                if (blockDim.x == 2) sum[n][k] += __shfl_xor_sync(0xffffffff, sum[n][k], 1);
        }
        return threadIdx.x ? -1 : 0;
    }
    bool upper = threadIdx.x & (2 * quarter), odd = threadIdx.x & quarter;
#pragma unroll
    for (int k = 0; k < FEW; ++k) {
        float a = upper ? sum[2][k] : sum[0][k], b = upper ? sum[3][k] : sum[1][k];
        a += __shfl_xor_sync(0xffffffff, upper ? sum[0][k] : sum[2][k], 2 * quarter);
        b += __shfl_xor_sync(0xffffffff, upper ? sum[1][k] : sum[3][k], 2 * quarter);
        float c = odd ? b : a;
        c += __shfl_xor_sync(0xffffffff, odd ? a : b, quarter);
        for (int apart = quarter / 2; apart; apart /= 2) c += __shfl_xor_sync(0xffffffff, c, apart);
        sum[0][k] = c;
    }
    return threadIdx.x % quarter ? -1 : 2 * upper + odd;
}

template <int FEW>
__device__ __forceinline__ void narrow_of(
    const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, T* y, int pixels, int channels, float slope
) {
    float a[V], b[V], own[FEW][V];
    EACH line_of(mean, deviation, scale, offset, threadIdx.x * V + v, a[v], b[v]);
    weights_of<FEW>(weight, channels, own);
    for (int start = blockIdx.x * blockDim.y * 4; start < pixels; start += gridDim.x * blockDim.y * 4) {
        float here[4][V], sum[4][FEW] = {};
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            int p = start + n * blockDim.y + threadIdx.y;  // beyond the last, it again: all threads add up together
            load(x + (long long)(p < pixels ? p : pixels - 1) * channels + threadIdx.x * V, here[n]);
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            EACH {
                float z = a[v] * here[n][v] + b[v];
                z = z < 0 ? slope * z : z;
#pragma unroll
                for (int k = 0; k < FEW; ++k) sum[n][k] += own[k][v] * z;
            }
        }
        int which = together<FEW>(sum);
#pragma unroll
        for (int n = 0; n < 4; ++n) {  // one where each has a pixel of its own
            int p = start + (which + n) * blockDim.y + threadIdx.y;
            if (which < 0 || p >= pixels || (n && blockDim.x > 3)) continue;
#pragma unroll
            for (int k = 0; k < FEW; ++k) y[(long long)p * FEW + k] = rounded(sum[n][k]);
        }
    }
}

// The channels of a pixel that are few.
template <int FEW>
struct alignas(sizeof(T) * (FEW & -FEW)) Few {
    T values[FEW];
};

// With e = 1 or `slope`, by what the activation does to a value of x, sums of g * e and g * e * (x - mean) are all that is
// needed: the gradient of x normalised is the weights' sum of g * e.
template <int FEW>
__device__ __forceinline__ void gather_narrow_of(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, float* to_weight, float* to_scale, float* to_offset, float* to_bias, float* shares,
    float* partial, unsigned* ticket, int pixels, int channels, float slope, int frozen
) {
    SHARED
    float a[V], b[V], middle[V], sums[2 * FEW][V] = {};
    int first = threadIdx.x * V, stride = gridDim.x * blockDim.y;
    EACH {
        line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
        middle[v] = mean ? mean[first + v] : 0.0f;
    }
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels; p += 4 * stride) {
        Pack here[4] = {};
        Few<FEW> from[4] = {};
        PIXELS(4) {
            long long at = p + n * stride;
            if (at >= pixels) continue;
            here[n] = packed_at(x + at * channels + first);
            from[n] = ((const Few<FEW>*)g)[at];
        }
        PIXELS(4) {
            if (p + n * stride >= pixels) break;
            float given[FEW];
#pragma unroll
            for (int k = 0; k < FEW; ++k) given[k] = wide(from[n].values[k]);
            EACH {
                float seen = value(here[n], v), bent = a[v] * seen + b[v] < 0 ? slope : 1.0f;
                float apart = bent * (seen - middle[v]);
#pragma unroll
                for (int k = 0; k < FEW; ++k) {
                    sums[2 * k][v] += given[k] * bent;
                    sums[2 * k + 1][v] += given[k] * apart;
                }
            }
        }
    }
    float known = deviation_of(deviation, channels);
    if (!total<2 * FEW>(shared, sums, partial, ticket, channels)) return;
    for (int c = thread_of_block(); c < channels; c += blockDim.x * blockDim.y) {
        float one, unused, back = 0, product = 0, lifted = mean ? offset[c] : 0.0f, own[FEW];
        line_of(mean, deviation, scale, offset, c, one, unused);
#pragma unroll
        for (int k = 0; k < FEW; ++k) own[k] = weight[k * channels + c];
#pragma unroll
        for (int k = 0; k < FEW; ++k) {
            float sum = shared[2 * k * channels + c], along = shared[(2 * k + 1) * channels + c];
            to_weight[k * channels + c] = one * along + (mean ? lifted * sum : 0.0f);
            back += own[k] * sum;
            product += own[k] * along;
        }
        shared[c] = back;
        shared[channels + c] = product;
    }
    if (mean)  // each thread takes the channels that it has just had
        conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, to_bias, shares, channels, pixels,
                           frozen);
}

template <int FEW>
__device__ __forceinline__ void spread_narrow_of(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, const float* shares, T* to_x, int pixels, int channels, float slope
) {
    float a[V], b[V], lift[V], tilt[V], own[FEW][V];
    int first = threadIdx.x * V, stride = gridDim.x * blockDim.y;
    EACH {
        line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
        tilt_of(mean, shares, channels, first + v, a[v], lift[v], tilt[v]);
    }
    weights_of<FEW>(weight, channels, own);
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels; p += 4 * stride) {
        Pack here[4] = {};
        Few<FEW> from[4] = {};
        PIXELS(4) {
            long long at = p + n * stride;
            if (at >= pixels) continue;
            if (mean) here[n] = packed_at(x + at * channels + first);
            from[n] = ((const Few<FEW>*)g)[at];
        }
        PIXELS(4) {
            long long at = p + n * stride;
            if (at >= pixels) break;
            float back[V], given[FEW];
#pragma unroll
            for (int k = 0; k < FEW; ++k) given[k] = wide(from[n].values[k]);
            EACH {
                float sum = 0, seen = value(here[n], v);
#pragma unroll
                for (int k = 0; k < FEW; ++k) sum += own[k][v] * given[k];
                sum = a[v] * seen + b[v] < 0 ? slope * sum : sum;
                back[v] = a[v] * sum + (lift[v] - tilt[v] * seen);
            }
            store(to_x + at * channels + first, back);
        }
    }
}

// Call a function made for so many channels.
#define FOR_FEW(function, ...)                  \
    switch (few) {                              \
        case 1: return function<1>(__VA_ARGS__); \
        case 2: return function<2>(__VA_ARGS__); \
        case 3: return function<3>(__VA_ARGS__); \
        case 4: return function<4>(__VA_ARGS__); \
    }

// y (pixels, few): the convolution of x normalised and activated, or as it is. blockDim.x is a power of 2, a warp at most.
KERNEL(1, narrow)(
    const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, T* y, int pixels, int channels, int few, float slope
) {
    FOR_FEW(narrow_of, x, mean, deviation, scale, offset, weight, y, pixels, channels, slope)
}

// The gradient of the weights, and with a mean the sums that the gradient of x needs.
KERNEL(1, gather_narrow)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, float* to_weight, float* to_scale, float* to_offset, float* to_bias, float* shares,
    float* partial, unsigned* ticket, int pixels, int channels, int few, float slope, int frozen
) {
    FOR_FEW(gather_narrow_of, g, x, mean, deviation, scale, offset, weight, to_weight, to_scale, to_offset, to_bias,
            shares, partial, ticket, pixels, channels, slope, frozen)
}

// The gradient of x.
KERNEL(1, spread_narrow)(
    const T* g, const T* x, const float* mean, const float* deviation, const float* scale, const float* offset,
    const float* weight, const float* shares, T* to_x, int pixels, int channels, int few, float slope
) {
    FOR_FEW(spread_narrow_of, g, x, mean, deviation, scale, offset, weight, shares, to_x, pixels, channels, slope)
}

// ------------------------------------------------------------------ the picture that the network returns

// y (images, channels, height, width) in float: x + bias, and of that the sigmoid. `area` is height x width.
KERNEL(2, finish)(const T* x, const float* bias, float* y, int pixels, int area, int channels, int sigmoid) {
    int first = threadIdx.x * V;
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels; p += gridDim.x * blockDim.y) {
        float here[V];
        load(x + (long long)p * channels + first, here);
        float* to = y + ((long long)(p / area) * channels + first) * area + p % area;
        EACH {
            float sum = bias ? here[v] + bias[first + v] : here[v];
            to[(long long)v * area] = sigmoid ? 1.0f / (1.0f + expf(-sum)) : sum;
        }
    }
}

// The gradients of x and of the bias.
KERNEL(1, finish_back)(
    const float* g, const float* y, T* to_x, float* to_bias, float* partial, unsigned* ticket, int pixels, int area,
    int channels, int sigmoid
) {
    SHARED
    float sums[2][V] = {};
    int first = threadIdx.x * V;
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < pixels; p += gridDim.x * blockDim.y) {
        float back[V];
        long long at = ((long long)(p / area) * channels + first) * area + p % area;
        EACH {
            float made = sigmoid ? y[at + (long long)v * area] : 0.0f;
            back[v] = g[at + (long long)v * area] * (sigmoid ? made * (1.0f - made) : 1.0f);
            sums[0][v] += back[v];
        }
        store(to_x + (long long)p * channels + first, back);
    }
    if (!total<2>(shared, sums, partial, ticket, channels)) return;
    for (int c = thread_of_block(); c < channels; c += blockDim.x * blockDim.y) to_bias[c] = shared[c];
}

// ------------------------------------------------------------------ the weights of what `enlarge` makes

// From weights (outputs, few + channels), pixel by pixel, to the order of `enlarge` and the picture's dtype.
KERNEL(2, arrange)(const float* weight, T* arranged, int few, int channels, int all) {
    int c = thread_of_block();
    for (; c < all; c += blockDim.x * blockDim.y) {
        int from = c < channels ? few + c : c - channels;
        arranged[blockIdx.x * all + c] = rounded(c < few + channels ? weight[blockIdx.x * (few + channels) + from] : 0.0f);
    }
}

// The same backwards, for their gradient.
KERNEL(2, arrange_back)(const T* arranged, float* weight, int few, int channels, int all) {
    int c = thread_of_block();
    for (; c < few + channels; c += blockDim.x * blockDim.y) {
        int from = c < few ? channels + c : c - few;
        weight[blockIdx.x * (few + channels) + c] = wide(arranged[blockIdx.x * all + from]);
    }
}

// ------------------------------------------------------------------ a convolution as a product of matrices

// columns (images, height, width, kernel, kernel, channels): what a convolution sees of a padded picture z from each of
// its outputs. A block has a row of them.
KERNEL(2, unfold)(
    const T* z, T* columns, int height, int width, int channels, int tall, int broad, int kernel, int stride
) {
    int image = blockIdx.x / height, top = blockIdx.x % height * stride, taps = kernel * kernel;
    const T* from = z + ((long long)image * tall + top) * broad * channels + threadIdx.x * V;
    T* to = columns + (long long)blockIdx.x * width * taps * channels + threadIdx.x * V;
    for (int start = threadIdx.y; start < width * taps; start += 4 * blockDim.y) {
        Pack found[4] = {};
        PIXELS(4) {
            int k = start + n * blockDim.y, tap = k % taps, line = tap / kernel;
            long long column = k / taps * stride + tap % kernel;
            if (k < width * taps) found[n] = packed_at(from + ((long long)line * broad + column) * channels);
        }
        PIXELS(4) {
            int k = start + n * blockDim.y;
            if (k < width * taps) *(Pack*)(to + (long long)k * channels) = found[n];
        }
    }
}

// ------------------------------------------------------------------ the mean squared error

// Add up a value of each thread of a block, of a power of two threads; the first has the sum.
__device__ __forceinline__ float over_block(float* shared, float sum) {
    int thread = thread_of_block();
    shared[thread] = sum;
    __syncthreads();
    for (int half = blockDim.x * blockDim.y / 2; half; half /= 2) {
        if (thread < half) shared[thread] += shared[thread + half];
        __syncthreads();
    }
    return shared[0];
}

// Over the values of x - y, which are `all`: `each` is given the number of one, and the value.
template <class Each>
__device__ __forceinline__ void over_apart(const float* x, const float* y, int all, Each each) {
    int stride = gridDim.x * blockDim.x * blockDim.y;
    for (int start = blockIdx.x * blockDim.x * blockDim.y + thread_of_block(); start < all; start += 4 * stride) {
        float apart[4];
        PIXELS(4) {
            int k = start + n * stride;
            apart[n] = k < all ? x[k] - y[k] : 0.0f;
        }
        PIXELS(4) {
            int k = start + n * stride;
            if (k < all) each(k, apart[n]);
        }
    }
}

// Of each block the sum of squares of x - y.
KERNEL(2, squares)(const float* x, const float* y, float* partial, int all) {
    SHARED
    float sum = 0;
    auto add_up = [&](int k, float apart) { sum += apart * apart; };
    over_apart(x, y, all, add_up);
    sum = over_block(shared, sum);
    if (thread_of_block() == 0) partial[blockIdx.x] = sum;
}

// Their mean, from the sums of so many blocks. There is one block.
KERNEL(2, squares_mean)(const float* partial, float* mean, int blocks, int all) {
    SHARED
    float sum = 0;
    for (int k = thread_of_block(); k < blocks; k += blockDim.x * blockDim.y) sum += partial[k];
    sum = over_block(shared, sum);
    if (thread_of_block() == 0) *mean = sum / all;
}

// The gradient of x from that of the mean, g.
KERNEL(2, squares_back)(const float* x, const float* y, const float* g, float* to_x, int all) {
    float factor = 2.0f * *g / all;
    auto leave = [&](int k, float apart) { to_x[k] = factor * apart; };
    over_apart(x, y, all, leave);
}

// ------------------------------------------------------------------ weights in another dtype

#if EMULATED || __CUDA_ARCH__ < 700
#define GRID_CONSTANT
#else
#define GRID_CONSTANT __grid_constant__
#endif

#define TENSORS 64
struct Tensors {  // `begin` has each one's first block, then the first beyond the last one's
    const void* from[TENSORS];
    void* to[TENSORS];
    int begin[TENSORS + 1], values[TENSORS];
};

struct alignas(4 * sizeof(T)) Four {
    T x, y, z, w;
};

#if !SEVERAL
// So many tensors from float to T, or from T to float. A block has `part` values of one.
KERNEL(2, cast)(const GRID_CONSTANT Tensors tensors, int count, int part, int widen) {
    __shared__ int own;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y, block = blockIdx.x;
    for (int k = thread; k < count; k += threads) {
        if (tensors.begin[k] <= block && block < tensors.begin[k + 1]) own = k;
    }
    __syncthreads();
    int first = (block - tensors.begin[own]) * part, all = tensors.values[own];
    int last = first + part < all ? first + part : all;
    T* narrow = (T*)(widen ? tensors.from[own] : tensors.to[own]);
    float* broad = (float*)(widen ? tensors.to[own] : tensors.from[own]);
    for (int k = first + 4 * thread; k < last; k += 4 * threads) {
        if (k + 3 < last && widen) {
            Four four = *(const Four*)(narrow + k);
            *(float4*)(broad + k) = {wide(four.x), wide(four.y), wide(four.z), wide(four.w)};
        } else if (k + 3 < last) {
            float4 four = *(const float4*)(broad + k);
            *(Four*)(narrow + k) = {rounded(four.x), rounded(four.y), rounded(four.z), rounded(four.w)};
        } else {
            for (int n = k; n < last; ++n) {
                if (widen)
                    broad[n] = wide(narrow[n]);
                else
                    narrow[n] = rounded(broad[n]);
            }
        }
    }
}
#endif

// ------------------------------------------------------------------ the jitter of the code

// drawn (n): z + std * normal numbers, four at a time by the generator Philox 4x32-10 (Salmon et al., Parallel random
// numbers: as easy as 1, 2, 3, 2011) from their place, the count and the seed, and the Box-Muller transform.
KERNEL(2, jitter)(
    const float* z, T* drawn, const long long* count, unsigned low_seed, unsigned high_seed, float std, int n
) {
    unsigned long long turn = *count;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y;
    for (int k = blockIdx.x * threads + thread; k < n / 4 + (n % 4 > 0); k += gridDim.x * threads) {
        unsigned x[4] = {(unsigned)k, 0, (unsigned)turn, (unsigned)(turn >> 32)}, low = low_seed, high = high_seed;
#pragma unroll
        for (int round = 0; round < 10; ++round) {
            unsigned a = __umulhi(0xd2511f53u, x[0]), b = __umulhi(0xcd9e8d57u, x[2]);
            unsigned other_a = 0xd2511f53u * x[0], other_b = 0xcd9e8d57u * x[2];
            x[0] = b ^ x[1] ^ low;
            x[1] = other_b;
            x[2] = a ^ x[3] ^ high;
            x[3] = other_a;
            low += 0x9e3779b9u;
            high += 0xbb67ae85u;
        }
        float noise[4];
#pragma unroll
        for (int v = 0; v < 4; v += 2) {  // 24 bits each: of (0, 1], and of half a turn either way
            float length = std * sqrtf(fmaxf(-2.0f * __logf(((x[v] >> 8) + 0.5f) * 0x1p-24f), 0.0f));  // it may round below 0
            float turned = (((x[v + 1] >> 8) + 0.5f) * 0x1p-24f - 0.5f) * 6.283185307f;
            noise[v] = length * __cosf(turned);
            noise[v + 1] = length * __sinf(turned);
        }
        if (4 * k + 3 < n) {
            float4 own = ((const float4*)z)[k];
            ((Four*)drawn)[k] = {rounded(own.x + noise[0]), rounded(own.y + noise[1]), rounded(own.z + noise[2]),
                                 rounded(own.w + noise[3])};
        } else {
            for (int v = 0; 4 * k + v < n; ++v) drawn[4 * k + v] = rounded(z[4 * k + v] + noise[v]);
        }
    }
}

// ------------------------------------------------------------------ what is counted

// Write a loss, and the data loss in it if it is another, to place *place of a ring of `most` each, and go on to the next.
KERNEL(2, note)(const float* loss, const float* data_loss, float* ring, long long* place, int most) {
    if (thread_of_block()) return;
    long long own = *place;
    ring[own] = *loss;
    if (data_loss) ring[most + own] = *data_loss;
    *place = own + 1 < most ? own + 1 : 0;
}

// Add 1 to so many counts, which `table` has the places of.
KERNEL(2, count)(const long long* table, int counts) {
    for (int k = thread_of_block(); k < counts; k += blockDim.x * blockDim.y) *(float*)table[k] += 1;
}

// ------------------------------------------------------------------ the optimiser

// A step of Adam. Row by row, `table` has where a part of a parameter, of its gradient and of its moments begin, the
// count of its steps, and how many values the part has. A block has a row.
KERNEL(2, adam)(const long long* table, const float* rate, float forgotten, float forgotten_squares, float eps) {
    const long long* row = table + 6 * blockIdx.x;
    float *value = (float*)row[0], *moment = (float*)row[2], *square = (float*)row[3];
    const float* gradient = (const float*)row[1];
    float steps = *(const float*)row[4];
    // 1 - (1 - forgotten)^steps
    float length = -*rate / -expm1f(steps * log1pf(-forgotten));
    float spread = 1.0f / sqrtf(-expm1f(steps * log1pf(-forgotten_squares)));
    int threads = blockDim.x * blockDim.y, count = (int)row[5];
    for (int start = thread_of_block(); start < count; start += 4 * threads) {
        float g[4], m[4], s[4], own[4];
        PIXELS(4) {
            int k = start + n * threads < count ? start + n * threads : start;
            g[n] = gradient[k], m[n] = moment[k], s[n] = square[k], own[n] = value[k];
        }
        PIXELS(4) {
            int k = start + n * threads;
            if (k >= count) break;
            m[n] += forgotten * (g[n] - m[n]);
            s[n] += forgotten_squares * (g[n] * g[n] - s[n]);
            moment[k] = m[n];
            square[k] = s[n];
            value[k] = own[n] + length * m[n] / (sqrtf(s[n]) * spread + eps);
        }
    }
}
