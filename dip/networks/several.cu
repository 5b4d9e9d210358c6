// The kernels for several fits at a time, compiled with SEVERAL as 1 (dip/merged.py): blockIdx.z says whose.
//
// This comes after the others, and has their names with "_each" behind. Instead of arguments a kernel is given a table,
// which has for each fit those that it would have been given, one after the other as in a struct of C.

template <class... A>
struct Types {};

template <class... A>
__device__ Types<A...> types_of(void (*)(A...));

// Call a kernel with what was read of its arguments, after the next has been, which are of these types and begin at AT.
template <auto NAME, int AT, class... Read>
__device__ __forceinline__ void called(Types<>, const char*, const Read&... read) {
    NAME(read...);
}
template <auto NAME, int AT, class A, class... Next, class... Read>
__device__ __forceinline__ void called(Types<A, Next...>, const char* own, const Read&... read) {
    constexpr int at = (AT + (int)alignof(A) - 1) / (int)alignof(A) * (int)alignof(A);
    called<NAME, at + (int)sizeof(A)>(Types<Next...>{}, own, read..., *(const A*)(own + at));
}

// As a parameter of the kernel the table is read as fast as arguments are, and its pointers are known to be global ones.
struct alignas(16) Table {
    char of[4000];
};

#define EACH_OF(NAME)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(NAME##_threads, NAME##_blocks)                                           \
        NAME##_each(const GRID_CONSTANT Table table, int size) {                                                          \
        called<NAME, 0>(decltype(types_of(NAME)){}, table.of + blockIdx.z * size);                                        \
    }

// All but `cast`, whose arguments are larger than that.
#define KERNELS(DO)                                                                                                        \
    DO(moments) DO(moments_enlarged) DO(normalise) DO(normalise_alone) DO(enlarge) DO(gather) DO(spread) DO(back_alone)    \
    DO(gather_enlarged) DO(spread_enlarged) DO(narrow) DO(gather_narrow) DO(spread_narrow) DO(finish) DO(finish_back)      \
    DO(arrange) DO(arrange_back) DO(unfold) DO(squares) DO(squares_mean) DO(squares_back) DO(jitter) DO(note) DO(count)    \
    DO(adam) DO(blur) DO(blur_moments) DO(blur_back) DO(sides) DO(sides_back) DO(ends) DO(gather_small) DO(patches)        \
    DO(patches_back) DO(turn) DO(turn_back)
#ifdef WARPS
#define PRODUCTS_OF(DO) DO(pointwise_64) DO(pointwise_128) DO(pointwise_back_64) DO(pointwise_back_128) DO(pointwise_sum)
#else
#define PRODUCTS_OF(DO)
#endif

#if SEVERAL  // only those that are launched: what compiles this says which
WANTED
#elif EMULATED
KERNELS(EACH_OF)
PRODUCTS_OF(EACH_OF)
#endif
