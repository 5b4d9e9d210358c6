// CUDA graphs on a CPU: what dip.merged asks of the driver. Nodes are done in the last order that their edges allow, so that
// an edge that is missing is seen in what comes of it.
#include <algorithm>
#include <cstddef>
#include <map>
#include <memory>
#include <string>

struct KernelParams {  // CUDA_KERNEL_NODE_PARAMS, and so on
    void* function;
    unsigned grid[3], block[3], shared;
    void **given, **extra;
    void *kernel, *context;
};
struct MemsetParams {
    unsigned long long to;
    size_t pitch;
    unsigned value, element;
    size_t width, height;
};
struct Side {
    size_t at[4];
    unsigned kind;
    void* where[4];
    size_t layout[2];
};
struct MemcpyParams {
    Side source, target;
    size_t size[3];
};

struct Node {
    int kind;
    KernelParams launch;
    std::vector<std::shared_ptr<std::vector<char>>> values;  // which the node owns, as the driver does
    std::vector<void*> given;
    MemsetParams memset;
    MemcpyParams memcpy;
    std::vector<Node*> after;
    int attribute;
};
struct Graph {
    std::vector<Node*> nodes;
};

static Graph* recording;
static int graphs_alive, launches;  // of graphs made by hand; of kernels

template <class... A>
static std::vector<size_t> sizes_of(void (*)(A...)) { return {sizeof(A)...}; }

// What is no kernel of the package's own: x becomes 2 x + 1, so that it matters when.
static void foreign(float* x, int count) {
    for (int k = 0; k < count; ++k) x[k] = 2 * x[k] + 1;
}

static std::vector<size_t> sizes(const std::string& name) {
#define SIZES(K) if (name == #K) return sizes_of(K);
#define SIZES_OF_EACH(K) if (name == #K "_each") return sizes_of(K##_each);
    KERNELS(SIZES)
    SIZES(cast)
    KERNELS(SIZES_OF_EACH)
    PRODUCTS_OF(SIZES)
    PRODUCTS_OF(SIZES_OF_EACH)
    return name == "foreign" ? sizes_of(foreign) : std::vector<size_t>{};
}

static int found_function(void** found, bool several, const char* name) {
    static std::map<std::string, std::string> names;
    std::string own = name;
    bool of_each = own.size() > 5 && own.substr(own.size() - 5) == "_each";
    if (of_each != several || sizes(own).empty()) return 500;
    *found = (void*)(names[own] = own).c_str();
    return 0;
}

static void keep(Node* node, void** given) {
    int k = 0;
    node->values.clear(), node->given.clear();
    for (size_t size : sizes((const char*)node->launch.function)) {
        node->values.push_back(std::make_shared<std::vector<char>>((char*)given[k], (char*)given[k] + size));
        node->given.push_back(node->values[k++]->data());
    }
    node->launch.given = node->given.data();
}

static Node* added(Graph* graph, int kind, std::vector<Node*> after) {
    Node* node = new Node{};
    node->kind = kind, node->after = after;
    graph->nodes.push_back(node);
    return node;
}

static std::vector<Node*> last() {
    return recording->nodes.empty() ? std::vector<Node*>{} : std::vector<Node*>{recording->nodes.back()};
}

static int record_kernel(
    void* function, unsigned x, unsigned y, unsigned z, unsigned wide, unsigned tall, unsigned deep, unsigned shared,
    void** given
) {
    Node* node = added(recording, 0, last());
    node->launch = {function, {x, y, z}, {wide, tall, deep}, shared, 0, 0, 0, 0};
    keep(node, given);
    return 0;
}

static void done(const Node* node) {
    if (node->kind == 2) {
        for (size_t k = 0; k < node->memset.width; ++k) ((unsigned*)node->memset.to)[k] = node->memset.value;
    } else if (node->kind == 1) {
        std::memcpy(node->memcpy.target.where[1], node->memcpy.source.where[1], node->memcpy.size[0]);
    } else if (node->kind == 0) {
        const KernelParams& launch = node->launch;
        ++launches;
        if (!std::strcmp((const char*)launch.function, "foreign"))
            foreign(*(float**)launch.given[0], *(int*)launch.given[1]);
        else
            emulated((const char*)launch.function, launch.grid[0], launch.grid[2], launch.block[0], launch.block[1],
                     launch.shared, launch.given);
    }
}

static int run(const Graph* graph) {
    std::vector<Node*> left = graph->nodes;
    while (!left.empty()) {
        auto is_ready = [&](Node* node) {
            return std::none_of(node->after.begin(), node->after.end(), [&](Node* before) {
                return std::find(left.begin(), left.end(), before) != left.end();
            });
        };
        auto next = std::find_if(left.rbegin(), left.rend(), is_ready);
        if (next == left.rend()) return 1;
        Node* node = *next;
        left.erase(std::next(next).base());
        done(node);
    }
    return 0;
}

template <class A>
static int filled(std::vector<A> all, A* made, size_t* count) {
    if (made) std::copy(all.begin(), all.begin() + *count, made);
    *count = all.size();
    return 0;
}

extern "C" {
void* record_begin() { return recording = new Graph; }
void record_end() { recording = 0; }
void record_foreign(float* x, int count, int attribute) {
    void* given[] = {&x, &count};
    record_kernel((void*)"foreign", 1, 1, 1, 1, 1, 1, 0, given);
    recording->nodes.back()->attribute = attribute;
}
void record_memset(float* x, int count) {
    added(recording, 2, last())->memset = {(unsigned long long)x, 0, 0, 4, (size_t)count, 1};
}
void record_memcpy(const float* from, float* to, int count) {
    MemcpyParams params = {};
    params.source.where[1] = (void*)from, params.target.where[1] = to, params.size[0] = 4 * (size_t)count;
    added(recording, 1, last())->memcpy = params;
}
void record_other(int kind) { added(recording, kind, last()); }
void record_fork(Graph* graph) { graph->nodes.back()->after = {graph->nodes.front()}; }
int alive() { return graphs_alive; }
int launched() { return launches; }

int cuGraphGetNodes(Graph* graph, Node** made, size_t* count) {
    std::vector<Node*> turned(graph->nodes.rbegin(), graph->nodes.rend());
    return filled(turned, made, count);
}
int cuGraphGetEdges_v2(Graph* graph, Node** from, Node** to, unsigned long long* more, size_t* count) {
    std::vector<Node*> ends, starts;
    for (Node* node : graph->nodes)
        for (Node* before : node->after) ends.push_back(before), starts.push_back(node);
    if (from && !more) return 1;
    filled(ends, from, count);
    return filled(starts, to, count);
}
int cuFuncGetName(const char** name, const char* function) {
    *name = function;
    return 0;
}
int cuFuncGetModule(void** module, const char* function) {
    *module = &module_loaded;
    return 0;
}
int cuGraphNodeGetType(Node* node, int* kind) {
    *kind = node->kind;
    return 0;
}
int cuGraphKernelNodeGetParams_v2(Node* node, KernelParams* params) {
    *params = node->launch;
    return node->kind != 0;
}
int cuGraphMemsetNodeGetParams(Node* node, MemsetParams* params) {
    *params = node->memset;
    return node->kind != 2;
}
int cuGraphMemcpyNodeGetParams(Node* node, MemcpyParams* params) {
    *params = node->memcpy;
    return node->kind != 1;
}
int cuGraphCreate(Graph** made, unsigned flags) {
    *made = new Graph, ++graphs_alive;
    return flags;
}
int cuGraphAddKernelNode_v2(Node** made, Graph* graph, Node** after, size_t count, const KernelParams* params) {
    if (!contexts_entered || params->extra) return 201;
    *made = added(graph, 0, {after, after + count});
    (*made)->launch = *params;
    keep(*made, params->given);
    return 0;
}
int cuGraphAddMemsetNode(Node** made, Graph* graph, Node** after, size_t count, const MemsetParams* params, void* own) {
    if (own != &context) return 201;
    (*made = added(graph, 2, {after, after + count}))->memset = *params;
    return 0;
}
int cuGraphAddMemcpyNode(Node** made, Graph* graph, Node** after, size_t count, const MemcpyParams* params, void* own) {
    if (own != &context) return 201;
    (*made = added(graph, 1, {after, after + count}))->memcpy = *params;
    return 0;
}
int cuGraphAddEmptyNode(Node** made, Graph* graph, Node** after, size_t count) {
    *made = added(graph, 5, {after, after + count});
    return 0;
}
int cuGraphKernelNodeCopyAttributes(Node* to, Node* from) {
    to->attribute = from->attribute;
    return 0;
}
// An executable graph is a copy: the nodes stay.
int cuGraphInstantiateWithFlags(Graph** made, Graph* graph, unsigned long long flags) {
    *made = new Graph(*graph), ++graphs_alive;
    return flags != 0;
}
int cuGraphDestroy(Graph* graph) {
    delete graph, --graphs_alive;
    return 0;
}
int cuGraphExecDestroy(Graph* graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(Graph* graph, void* stream) {
    return !contexts_entered || stream != (void*)0x123456789a ? 201 : run(graph);
}
// How many nodes have this attribute, and the longest way from the first to the last.
int attributed(Graph* graph, int attribute) {
    return std::count_if(graph->nodes.begin(), graph->nodes.end(), [&](Node* n) { return n->attribute == attribute; });
}
int length(Graph* graph) {
    std::map<Node*, int> depth;
    int most = 0;
    for (Node* node : graph->nodes) {
        int own = 1;
        for (Node* before : node->after) own = std::max(own, depth[before] + 1);
        most = std::max(most, depth[node] = own);
    }
    return most;
}
}
