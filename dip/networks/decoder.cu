// The stage of the decoder, computed on the small picture: what is beside the products (dip/networks/decoder.py).
//
// This comes after kernels.cu, whose helpers it uses. Along a side of the small picture, number 0 to 3 (above, below,
// left, right), the convolution's padding differs from what the filter makes there; tensors of sides are
// (4, images, length, channels), `length` being that of the longer ones.

#define REPEAT 2  // the padding of the small picture: its border pixels again

__device__ __forceinline__ bool is_row(int side) { return side < 2; }

// What a line of the small picture weighs in the difference of padding beyond it, by its distance from the border.
__device__ __forceinline__ float beyond(int distance, int reflect) {
    if (distance == 0) return reflect ? -0.25f : -1.0f;
    return reflect && distance == 1 ? 0.25f : 0.0f;
}

// How far pixel (i, j) of a picture is from a side.
__device__ __forceinline__ int distance_of(int side, int i, int j, int height, int width) {
    int line = is_row(side) ? i : j;
    return side % 2 ? (is_row(side) ? height : width) - 1 - line : line;
}

// ------------------------------------------------------------------ the filter

// A thread of a filter needs more registers than two blocks of 512 would find on a processor.
#define FILTER(BLOCKS, NAME) OF_THREADS(256, BLOCKS, NAME)

// What a block of it does: some neighbouring columns of so many rows. A thread goes down a column.
struct Strip {
    int image, top, bottom, j;
};

__device__ __forceinline__ Strip strip_of(int number, int height, int width, int rows) {
    int groups = (width + blockDim.y - 1) / blockDim.y, strips = (height + rows - 1) / rows;
    int strip = number / groups, top = strip % strips * rows;
    int j = number % groups * blockDim.y + threadIdx.y;
    return {strip / strips, top, top + rows < height ? top + rows : height, j};
}

// Of (1, 3, 3, 1) / 16: that of the columns is scaled here, too.
__device__ __forceinline__ float tap_of(int number) { return number == 0 || number == 3 ? 0.0625f : 0.1875f; }

// From the next row, filtered, to the sum of the last four by (1, 3, 3, 1): `kept` are the next sums, as far as they are.
__device__ __forceinline__ void filtered(float* sum, float (*kept)[V]) {
    EACH {
        float here = sum[v];
        sum[v] += kept[0][v];
        kept[0][v] = 3 * here + kept[1][v];
        kept[1][v] = 3 * here + kept[2][v];
        kept[2][v] = here;
    }
}

// Four pixels of a row, which are read a row ahead: then they are on their way while the last row is worked on.
struct Row {
    Pack of[4];
};

__device__ __forceinline__ Row row_of(const T* x, int channels) {
    Row row;
#pragma unroll
    for (int b = 0; b < 4; ++b) row.of[b] = packed_at(x + b * channels);
    return row;
}

__device__ __forceinline__ void along_row(const Row& row, float* sum) {
    EACH {
        sum[v] = tap_of(0) * (value(row.of[0], v) + value(row.of[3], v));
        sum[v] += tap_of(1) * (value(row.of[1], v) + value(row.of[2], v));
    }
}

// y (images, height, width, channels): x, which has three lines more, filtered by (1, 3, 3, 1) / 4 along rows and
// columns. To it come `beside`, as large as y, if it is not 0, and along the border `sides`. This is one strip of it; if
// SUMMED, its values and their squares are added to `sums`.
template <bool SUMMED>
__device__ __forceinline__ void blur_strip(
    Strip own, const T* x, const T* beside, const T* sides, T* y, int images, int height, int width, int channels,
    int length, float (*sums)[V]
) {
    int j = own.j, first = threadIdx.x * V;
    if (j >= width) return;
    const T* from = x + (((long long)own.image * (height + 3) + own.top) * (width + 3) + j) * channels + first;
    long long to = (((long long)own.image * height + own.top) * width + j) * channels + first;
    const T* more = beside ? beside : x;  // read in any case: what is known to be read is on its way early
    float kept[3][V] = {}, added = beside ? 1.0f : 0.0f;
    Row next = row_of(from, channels);
    Pack other = packed_at(more + to);
#pragma unroll 1
    for (int i = own.top - 3; i < own.bottom; ++i) {
        float sum[V];
        along_row(next, sum);
        from += (width + 3) * channels;
        if (i + 1 < own.bottom) next = row_of(from, channels);
        filtered(sum, kept);
        if (i < own.top) continue;
        EACH sum[v] += added * value(other, v);
        if (i + 1 < own.bottom) other = packed_at(more + to + width * channels);
        if (i == 0 || i == height - 1 || j == 0 || j == width - 1) {
#pragma unroll 1
            for (int side = 0; side < 4; ++side) {
                if (distance_of(side, i, j, height, width)) continue;
                long long k = ((long long)side * images + own.image) * length + (is_row(side) ? j : i);
                add(sides + k * channels + first, 1.0f, sum);
            }
        }
        Pack made = pack_of(sum);
        *(Pack*)(y + to) = made;
        if (SUMMED) {
            EACH {
                sums[0][v] += value(made, v);
                sums[1][v] += value(made, v) * value(made, v);
            }
        }
        to += width * channels;
    }
}

FILTER(3, blur)(
    const T* x, const T* beside, const T* sides, T* y, int images, int height, int width, int channels, int rows,
    int length
) {
    Strip own = strip_of(blockIdx.x, height, width, rows);
    blur_strip<false>(own, x, beside, sides, y, images, height, width, channels, length, 0);
}

// The same, and the statistics of y for the normalisation that comes next, before which `bias` would have been added.
FILTER(2, blur_moments)(
    const T* x, const T* beside, const T* sides, T* y, const float* bias, float* mean, float* deviation,
    float* running_mean, float* running_variance, long long* seen, float* partial, unsigned* ticket, int images,
    int height, int width, int channels, int rows, int length, int strips, float eps, float momentum
) {
    SHARED
    float sums[2][V] = {}, pixels = (float)images * height * width;
#pragma unroll 1
    for (int strip = blockIdx.x; strip < strips; strip += gridDim.x) {
        Strip own = strip_of(strip, height, width, rows);
        blur_strip<true>(own, x, beside, sides, y, images, height, width, channels, length, sums);
    }
    Known known = known_of(0, bias, running_mean, running_variance, seen, channels, thread_of_block());
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude(shared, known, 0, bias, mean, deviation, running_mean, running_variance, seen, channels, pixels,
                 pixels, eps, momentum);
}

// The gradient of x (images, height, width, channels) from that of y, g, which has three lines less.
FILTER(3, blur_back)(const T* g, T* to_x, int height, int width, int channels, int rows) {
    Strip own = strip_of(blockIdx.x, height, width, rows);
    int tall = height - 3, broad = width - 3, j = own.j, first = threadIdx.x * V;
    if (j >= width) return;
    bool there[4];  // beyond g there is 0
#pragma unroll
    for (int b = 0; b < 4; ++b) there[b] = j - 3 + b >= 0 && j - 3 + b < broad;
    const T* from = g + ((long long)own.image * tall * broad + j - 3) * channels + first;
    T* to = to_x + (((long long)own.image * height + own.top) * width + j) * channels + first;
    auto row_at = [&](int i) {
        Row row = {};
#pragma unroll
        for (int b = 0; b < 4; ++b) {
            if (there[b] && i >= 0 && i < tall) row.of[b] = packed_at(from + ((long long)i * broad + b) * channels);
        }
        return row;
    };
    float kept[3][V] = {};
    Row next = row_at(own.top - 3);
#pragma unroll 1
    for (int i = own.top - 3; i < own.bottom; ++i) {
        float sum[V];
        along_row(next, sum);
        if (i + 1 < own.bottom) next = row_at(i + 1);
        filtered(sum, kept);
        if (i < own.top) continue;
        store(to, sum);
        to += width * channels;
    }
}

// ------------------------------------------------------------------ the border

// seen (4, images, length, 3, channels): of the difference along each side, normalised and enlarged, the three pixels
// that the convolution sees from each pixel there. Beyond the ends of rows there is the padding's own, beyond those of
// columns what the filter makes: the corners are to be counted once.
KERNEL(2, sides)(
    const T* x, const float* mean, const float* deviation, const float* scale, const float* offset, T* seen, int images,
    int height, int width, int channels, int length, int reflect
) {
    int first = threadIdx.x * V;
    float a[V], b[V];
    EACH line_of(mean, deviation, scale, offset, first + v, a[v], b[v]);
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < 12 * images * length; p += gridDim.x * blockDim.y) {
        int l = p / 3 % length, side = p / 3 / length / images, image = p / 3 / length % images;
        int size = is_row(side) ? width : height;
        int m = l < 2 * size ? shown(l + p % 3, 2 * size, 1, is_row(side) ? reflect : REPEAT) : -1;
        float sum[V] = {};
        if (m >= 0) {
            int border = side % 2 ? (is_row(side) ? height : width) - 1 : 0, inwards = side % 2 ? -1 : 1;
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                int k = n % 2 ? held(m % 2 ? m / 2 + 1 : m / 2 - 1, size) : m / 2;
                int line = border + n / 2 * inwards;
                long long i = is_row(side) ? line : k, j = is_row(side) ? k : line;
                float weight = (n % 2 ? 0.25f : 0.75f) * beyond(n / 2, reflect);
                add(x + ((image * height + i) * width + j) * channels + first, weight, sum);
            }
            EACH sum[v] = a[v] * sum[v] - (reflect ? 0.0f : b[v]);
        }
        store(seen + (long long)p * channels + first, sum);
    }
}

// along (4, images, short, channels): the gradient of that difference before it was enlarged, from that of `seen`.
KERNEL(2, sides_back)(
    const T* seen, T* along, int images, int height, int width, int channels, int length, int reflect
) {
    int first = threadIdx.x * V, shorter = length / 2;
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < 4 * images * shorter; p += gridDim.x * blockDim.y) {
        int k = p % shorter, side = p / shorter / images, size = is_row(side) ? width : height;
        const T* own = seen + (long long)(p / shorter) * length * 3 * channels + first;
        float sum[V] = {};
        for (int n = 0; n < 8 && k < size; ++n) {
            int line = 2 * k - 2 + n;
            float weight = weight_there(line, k, size, 1, is_row(side) ? reflect : REPEAT, 1);
            if (weight == 0) continue;
#pragma unroll
            for (int t = 0; t < 3; ++t) {
                int l = line - t;
                if (l >= 0 && l < 2 * size) add(own + (3ll * l + t) * channels, weight, sum);
            }
        }
        store(along + (long long)p * channels + first, sum);
    }
}

// ends (4, images, length, channels): the pixels of g along each side.
KERNEL(2, ends)(const T* g, T* found, int images, int height, int width, int channels, int length) {
    int first = threadIdx.x * V;
    for (int p = blockIdx.x * blockDim.y + threadIdx.y; p < 4 * images * length; p += gridDim.x * blockDim.y) {
        int l = p % length, side = p / length / images, image = p / length % images;
        float here[V] = {};
        if (l < (is_row(side) ? width : height)) {
            int border = side % 2 ? (is_row(side) ? height : width) - 1 : 0;
            long long i = is_row(side) ? border : l, j = is_row(side) ? l : border;
            load(g + ((image * height + i) * width + j) * channels + first, here);
        }
        store(found + (long long)p * channels + first, here);
    }
}

// ------------------------------------------------------------------ the small picture

// The gradient of the small picture normalised, from that of it padded and from what `sides_back` found, and its sums.
KERNEL(1, gather_small)(
    const T* g, const T* along, const T* x, const float* mean, const float* deviation, const float* scale,
    T* back_small, float* to_scale, float* to_offset, float* shares, float* partial, unsigned* ticket, int images,
    int height, int width, int channels, int length, int reflect, int frozen
) {
    SHARED
    float middle[V], sums[2][V] = {};
    int first = threadIdx.x * V;
    EACH middle[v] = mean[first + v];
    for (int line = blockIdx.x; line < images * height; line += gridDim.x) {
        int i = line % height, image = line / height;
        const T* padded = g + (long long)image * (height + 2) * (width + 2) * channels + first;
        long long own = (long long)line * width * channels + first;
        auto each = [&](int j, float* back, const Pack& here) {
            if (i < 2 || i >= height - 2 || j < 2 || j >= width - 2) {
#pragma unroll 1
                for (int side = 0; side < 4; ++side) {
                    float weight = beyond(distance_of(side, i, j, height, width), reflect);
                    if (weight == 0) continue;
                    long long k = ((long long)side * images + image) * (length / 2) + (is_row(side) ? j : i);
                    add(along + k * channels + first, weight, back);
                }
            }
            store(back_small + own + (long long)j * channels, back);
            EACH {
                sums[0][v] += back[v];
                sums[1][v] += back[v] * (value(here, v) - middle[v]);
            }
        };
        over_line(padded, x + own, i, height, width, channels, channels, 1, REPEAT, each);
    }
    float known = deviation_of(deviation, channels);
    if (total<2>(shared, sums, partial, ticket, channels))
        conclude_gradients(shared, known, deviation, scale, to_scale, to_offset, 0, shares, channels,
                           4.0f * images * height * width, frozen);
}

// ------------------------------------------------------------------ the branch

// seen (images, height, width, all): the 3 x 3 pixels (few) that the convolution sees from each pixel of x, then zeros.
// A block has a row.
KERNEL(2, patches)(const T* x, T* seen, int height, int width, int few, int all, int reflect) {
    const T* image = x + (long long)(blockIdx.x / height) * height * width * few;
    int rows[V], across[V];  // where each of the thread's values is found: from which on, -1 for nowhere, and the tap
    EACH {
        int k = threadIdx.x * V + v, tap = k / few;
        int i = tap < 9 ? shown(blockIdx.x % height + tap / 3, height, 1, reflect) : -1;
        rows[v] = i < 0 ? -1 : i * width * few + k % few;
        across[v] = tap % 3;
    }
    for (int column = threadIdx.y; column < width; column += blockDim.y) {
        float here[V];
        EACH {
            int j = shown(column + across[v], width, 1, reflect);
            here[v] = rows[v] < 0 || j < 0 ? 0.0f : wide(image[rows[v] + j * few]);
        }
        store(seen + ((long long)blockIdx.x * width + column) * all + threadIdx.x * V, here);
    }
}

// The gradient of x (images, height, width, few) from that. A block has a row.
KERNEL(2, patches_back)(const T* seen, T* to_x, int height, int width, int few, int all, int reflect) {
    int first = threadIdx.x * V, i = blockIdx.x % height;
    const T* image = seen + (long long)(blockIdx.x / height) * height * width * all + first;
    for (int j = threadIdx.y; j < width; j += blockDim.y) {
        float sum[V] = {};
        int other = again(i, height, reflect), beside = again(j, width, reflect);
#pragma unroll 1
        for (int n = 0; n < 4; ++n) {  // where the pixel is in the padded picture
            if ((n / 2 && other == i + 1) || (n % 2 && beside == j + 1)) continue;
            int row = n / 2 ? other : i + 1, column = n % 2 ? beside : j + 1;
#pragma unroll
            for (int tap = 0; tap < 9; ++tap) {
                int a = row - tap / 3, b = column - tap % 3;
                float weight = a < 0 || a >= height || b < 0 || b >= width ? 0.0f : 1.0f;
                const T* there = image + ((long long)held(a, height) * width + held(b, width)) * all;
                add(there + tap * few, weight, sum);
            }
        }
        store(to_x + ((long long)blockIdx.x * width + j) * few + first, sum);
    }
}

// ------------------------------------------------------------------ the weights

#define TILE 32

// The place of a weight of tap (r, s) among those of a side, if it sees the padding there; else -1.
__device__ __forceinline__ int place_of(int side, int tap) {
    int across = is_row(side) ? tap / 3 : tap % 3, along = is_row(side) ? tap % 3 : tap / 3;
    return across == side % 2 * 2 ? 3 * side + along : -1;
}

// From weights (outputs, 3, 3, few + channels) to those of the transposed convolution (channels, 3, 3, outputs), of the
// branch's `patches` (rows, outputs), with zeros in the end, and of the sides (4, 3, channels, outputs).
KERNEL(2, turn)(const float* weight, T* turned, T* matrix, T* kernels, int outputs, int few, int channels, int rows) {
    __shared__ float tile[TILE][TILE + 1];
    int all = few + channels, across = (all + TILE - 1) / TILE, tap = blockIdx.x % 9;
    int c0 = blockIdx.x / 9 % across * TILE, k0 = blockIdx.x / 9 / across * TILE;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y;
    for (int n = thread; n < TILE * TILE; n += threads) {
        int k = k0 + n / TILE, c = c0 + n % TILE;
        if (k < outputs && c < all) tile[n / TILE][n % TILE] = weight[(k * 9 + tap) * all + c];
    }
    __syncthreads();
    for (int n = thread; n < TILE * TILE; n += threads) {
        int k = k0 + n % TILE, c = c0 + n / TILE - few;
        if (k >= outputs || c >= channels) continue;
        T value = rounded(tile[n % TILE][n / TILE]);
        if (c < 0) {
            matrix[(tap * few + few + c) * outputs + k] = value;
            continue;
        }
        turned[(c * 9 + 8 - tap) * outputs + k] = value;
        for (int side = 0; side < 4; ++side) {
            int place = place_of(side, tap);
            if (place >= 0) kernels[(place * channels + c) * outputs + k] = value;
        }
    }
    if (blockIdx.x) return;
    for (int n = 9 * few * outputs + thread; n < rows * outputs; n += threads) matrix[n] = rounded(0.0f);
}

// The same backwards, for their gradients.
KERNEL(2, turn_back)(
    const T* turned, const T* matrix, const T* kernels, float* weight, int outputs, int few, int channels
) {
    __shared__ float tile[TILE][TILE + 1];
    int all = few + channels, across = (all + TILE - 1) / TILE, tap = blockIdx.x % 9;
    int c0 = blockIdx.x / 9 % across * TILE, k0 = blockIdx.x / 9 / across * TILE;
    int thread = thread_of_block(), threads = blockDim.x * blockDim.y;
    for (int n = thread; n < TILE * TILE; n += threads) {
        int k = k0 + n % TILE, c = c0 + n / TILE - few;
        if (k >= outputs || c >= channels) continue;
        float sum = 0;
        if (c < 0) {
            sum = wide(matrix[(tap * few + few + c) * outputs + k]);
        } else {
            sum = wide(turned[(c * 9 + 8 - tap) * outputs + k]);
            for (int side = 0; side < 4; ++side) {
                int place = place_of(side, tap);
                if (place >= 0) sum += wide(kernels[(place * channels + c) * outputs + k]);
            }
        }
        tile[n % TILE][n / TILE] = sum;
    }
    __syncthreads();
    for (int n = thread; n < TILE * TILE; n += threads) {
        int k = k0 + n / TILE, c = c0 + n % TILE;
        if (k < outputs && c < all) weight[(k * 9 + tap) * all + c] = tile[n / TILE][n % TILE];
    }
}
