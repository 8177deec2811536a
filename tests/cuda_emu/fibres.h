// Runs a grid of CUDA threads on the CPU: each thread of a block is a fibre with a stack of its own, blocks run one after another.
//
// A fibre runs until it has to wait for others, in a block barrier or in an operation of its warp, and then hands over to the next one that can go
// on: other lanes of its warp first, then other warps. So one warp runs as far ahead as it can, which brings missing barriers to light: in one of the
// two orders of fibres the reader runs before the writer. When nobody can go on, the launch ends with a report of who waits where.
#pragma once
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <dlfcn.h>
#include <link.h>
#include <map>
#include <mutex>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// One launch at a time (a lock sees to it), so these are plain variables, set whenever another fibre goes on.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// Saves the registers that a function must preserve on the stack, the stack's address in *from, and goes on with the stack `to`.
extern "C" __attribute__((visibility("hidden"))) void emu_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
    .pushsection .text
    .weak emu_switch
    .hidden emu_switch
    .type emu_switch, @function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emu_switch, . - emu_switch
    .popsection
)");
#elif defined(__aarch64__)
asm(R"(
    .pushsection .text
    .weak emu_switch
    .hidden emu_switch
    .type emu_switch, @function
emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size emu_switch, . - emu_switch
    .popsection
)");
#else
#error "the emulator's fibres know x86-64 and aarch64"
#endif

namespace emu {

constexpr unsigned LANES = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 128 << 10, MOST_SHARED = 228 << 10;
constexpr int POISON = 0xff; // as floats and as halves: NaN

enum class Order { FORWARD, REVERSE };
enum class Status { OK, INVALID, FAULT, DEADLOCK };

struct Result {
    Status status = Status::OK;
    std::string message; // what went wrong, with kernel, block, thread and source line
    bool ok() const { return status == Status::OK; }
};

// A kernel as EMU_KERNEL registers it.
struct Kernel {
    void (*call)(void** arguments); // runs one thread
    std::vector<size_t> sizes;      // bytes of each parameter
};

inline std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

// Where a thread waits. The line is that of the source, not of the compiled call: the compiler may double a call.
struct Site {
    const char* what;
    const char* file;
    int line;
    bool same(const Site& other) const { return line == other.line && !std::strcmp(what, other.what) && !std::strcmp(file, other.file); }
};

struct Copy {
    void* shared;
    const void* global;
    bool valid;
};

struct Fibre {
    void* stack = nullptr; // where it goes on
    char* top = nullptr;   // end of its stack
    uint3 index;
    Site site;     // what it waits in
    unsigned mask; // the lanes of that operation; 0 for a block barrier
    std::vector<Copy> copies;     // asynchronous copies under way, oldest first
    std::vector<size_t> groups;   // how many of them each group has, but for the one still open
};

// One operation of several lanes of a warp: each leaves a value, the last one completes it, all take a result.
struct Round {
    unsigned mask = 0, arrived = 0, unread = 0;
    Site site;
    alignas(16) unsigned char slots[LANES][64];
};

struct Warp {
    unsigned live = 0, ready = 0; // lanes that have not returned; lanes that can go on
    std::deque<Round> rounds;     // a deque, since lanes hold on to their round
};

struct Engine {
    std::mutex lock;
    // The launch.
    const char* name = "";
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;
    Order order = Order::FORWARD;
    Result result;
    // The block.
    Fibre fibres[MOST_THREADS];
    Warp warps[MOST_THREADS / LANES];
    unsigned threads = 0, live = 0, current = 0;
    unsigned ready_warps = 0;
    unsigned arrived = 0; // threads in the block barrier
    Site barrier;
    struct Votes {
        int all = 1, any = 0, count = 0;
    } votes, outcome; // of the threads so far; of the last barrier that completed
    // Memory.
    char* shared = nullptr; // dynamic shared memory of the block
    char* area = nullptr;   // where it lies: MOST_SHARED bytes between two inaccessible pages
    size_t shared_bytes = 0;
    char *statics = nullptr, *statics_end = nullptr; // static shared memory of all kernels, see find_statics
    // The way back.
    void* host = nullptr; // stack of the caller
    pthread_t thread;
    volatile bool running = false;
    sigjmp_buf escape;
    volatile int signal = 0;
    void *volatile fault_address = nullptr, *volatile fault_code = nullptr;
};
inline Engine engine;

// --- fibres ------------------------------------------------------------------------------------------------------------------------------

// The first set bit in the order of fibres, and the one after `current`, cyclically. `ready` is not 0.
inline unsigned first(unsigned ready) {
    return engine.order == Order::FORWARD ? __builtin_ctz(ready) : 31 - __builtin_clz(ready);
}
inline unsigned next(unsigned ready, unsigned current) {
    const unsigned behind = engine.order == Order::FORWARD ? ready & (~1u << current) : ready & ((1u << current) - 1);
    return first(behind ? behind : ready);
}

inline void go_to(void** from, unsigned thread) {
    engine.current = thread;
    threadIdx = engine.fibres[thread].index;
    emu_switch(from, engine.fibres[thread].stack);
}

// Hands over to the next fibre; `restart` begins with the first one again. Comes back when somebody hands over to this one.
inline void hand_over(bool restart = false) {
    Engine& e = engine;
    Fibre& self = e.fibres[e.current];
    if (!e.ready_warps) { // all have returned, or all wait
        emu_switch(&self.stack, e.host);
        return;
    }
    const unsigned warp = e.current / LANES, lane = e.current % LANES;
    unsigned target;
    if (!restart && e.warps[warp].ready) {
        target = warp * LANES + next(e.warps[warp].ready, lane);
    } else {
        const unsigned other = restart ? first(e.ready_warps) : next(e.ready_warps, warp);
        target = other * LANES + first(e.warps[other].ready);
    }
    if (target != e.current) go_to(&self.stack, target);
}

// Waits until another fibre makes this one ready.
inline void wait() {
    const unsigned warp = engine.current / LANES;
    engine.warps[warp].ready &= ~(1u << engine.current % LANES);
    if (!engine.warps[warp].ready) engine.ready_warps &= ~(1u << warp);
    hand_over();
}

// "kernel NAME, block (x, y, z)"
inline std::string place() {
    char text[256];
    std::snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u)", engine.name, blockIdx.x, blockIdx.y, blockIdx.z);
    return text;
}

inline const char* file_name(const char* path) {
    const char* slash = std::strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// Ends the launch from within a kernel.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(Status status, const char* format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    std::vsnprintf(text, sizeof text, format, list);
    va_end(list);
    char who[32];
    std::snprintf(who, sizeof who, ", thread %u: ", engine.current);
    engine.result.status = status;
    engine.result.message = place() + who + text;
    emu_switch(&engine.fibres[engine.current].stack, engine.host);
    std::abort(); // nobody hands over to a launch that has ended
}

// --- block barrier -----------------------------------------------------------------------------------------------------------------------

inline void release_barrier() {
    Engine& e = engine;
    e.arrived = 0;
    e.outcome = e.votes;
    e.votes = {};
    e.ready_warps = 0;
    for (unsigned w = 0; w * LANES < e.threads; w++) {
        e.warps[w].ready = e.warps[w].live;
        if (e.warps[w].ready) e.ready_warps |= 1u << w;
    }
}

// Waits for all threads of the block that have not returned. All must come to the same line: a barrier in divergent code is an error even where the
// counts happen to match.
inline void barrier(const Site& site, int vote) {
    Engine& e = engine;
    if (e.arrived == 0) e.barrier = site;
    if (!e.barrier.same(site)) {
        fail(Status::DEADLOCK, "divergent barrier: %s at %s:%d while others wait in %s at %s:%d", site.what, file_name(site.file), site.line,
             e.barrier.what, file_name(e.barrier.file), e.barrier.line);
    }
    e.votes.all &= vote != 0;
    e.votes.any |= vote != 0;
    e.votes.count += vote != 0;
    if (++e.arrived == e.live) {
        release_barrier();
        hand_over(true); // so that the order of fibres is the same behind each barrier
    } else {
        e.fibres[e.current].site = site;
        e.fibres[e.current].mask = 0;
        wait();
    }
}

// --- operations of a warp ----------------------------------------------------------------------------------------------------------------

// All lanes of `mask` meet here, each with `bytes` of `value`; the last one calls `finish`. The caller clears its bit of `unread` when it has taken
// its result from the slots.
inline Round& meet(unsigned mask, const Site& site, const void* value, size_t bytes, void (*finish)(Round&)) {
    Engine& e = engine;
    const unsigned warp = e.current / LANES, lane = e.current % LANES;
    Warp& w = e.warps[warp];
    if (!(mask >> lane & 1)) fail(Status::DEADLOCK, "%s at %s:%d: lane %u is not in its mask %08x", site.what, file_name(site.file), site.line, lane, mask);
    Round* round = nullptr;
    for (Round& r : w.rounds) {
        if (r.arrived && r.mask == mask) {
            round = &r;
            break;
        }
        if (!round && !r.arrived && !r.unread) round = &r;
    }
    if (!round) round = &w.rounds.emplace_back();
    if (!round->arrived) {
        round->mask = mask;
        round->site = site;
    } else if (!round->site.same(site)) {
        fail(Status::DEADLOCK, "%s at %s:%d while other lanes of mask %08x wait in %s at %s:%d", site.what, file_name(site.file), site.line, mask,
             round->site.what, file_name(round->site.file), round->site.line);
    }
    std::memcpy(round->slots[lane], value, bytes);
    round->arrived |= 1u << lane;
    if (round->arrived == mask) {
        round->arrived = 0;
        round->unread = mask;
        if (finish) finish(*round);
        w.ready |= mask;
    } else {
        e.fibres[e.current].site = site;
        e.fibres[e.current].mask = mask;
        wait();
    }
    return *round;
}

// The common case: `read` takes this lane's result from the slots.
template <class T, class Read>
inline auto exchange(unsigned mask, const T& value, const Site& site, Read read, void (*finish)(Round&) = nullptr) {
    static_assert(sizeof(T) <= sizeof Round::slots[0] && std::is_trivially_copyable<T>::value, "a lane's value fits a slot");
    Round& round = meet(mask, site, &value, sizeof value, finish);
    const auto result = read(round);
    round.unread &= ~(1u << engine.current % LANES);
    return result;
}

template <class T>
inline T slot(const Round& round, unsigned lane) {
    T value;
    std::memcpy(&value, round.slots[lane], sizeof value);
    return value;
}

} // namespace emu
