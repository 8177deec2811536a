// Launches: checks of the launch shape, shared memory, the blocks of a grid, faults in a kernel, registration of kernels.
#pragma once
#include "fibres.h"

namespace emu {

// --- a block -----------------------------------------------------------------------------------------------------------------------------

// Where each fibre starts.
inline void run_thread() {
    Engine& e = engine;
    e.kernel->call(e.arguments);
    Warp& w = e.warps[e.current / LANES];
    w.live &= ~(1u << e.current % LANES);
    e.live--;
    if (e.live && e.arrived == e.live) release_barrier(); // a thread that has returned does not hold up the others
    w.ready &= w.live & ~(1u << e.current % LANES);
    if (!w.ready) e.ready_warps &= ~(1u << e.current / LANES);
    hand_over();
    std::abort(); // nobody hands over to a thread that has returned
}

// A fresh stack, as if the fibre had called emu_switch right before run_thread.
inline void prepare(Fibre& fibre) {
    void** stack = reinterpret_cast<void**>(fibre.top);
#if defined(__x86_64__)
    *--stack = nullptr; // return address of run_thread: there is none
    *--stack = reinterpret_cast<void*>(&run_thread);
    for (int k = 0; k < 6; k++) *--stack = nullptr;
#else
    for (int k = 0; k < 20; k++) *--stack = nullptr;
    stack[11] = reinterpret_cast<void*>(&run_thread); // x30
#endif
    fibre.stack = stack;
}

// Stacks and shared memory, made once. Below each stack lies an inaccessible page.
inline void provide(unsigned threads) {
    const size_t page = sysconf(_SC_PAGESIZE);
    const auto map = [](size_t bytes) {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) {
            std::perror("emulator: no memory");
            std::abort();
        }
        return static_cast<char*>(at);
    };
    if (!engine.area) {
        char* at = map(page + MOST_SHARED + page);
        mprotect(at, page, PROT_NONE);
        mprotect(at + page + MOST_SHARED, page, PROT_NONE);
        engine.area = at + page;
    }
    for (unsigned i = 0; i < threads; i++) {
        Fibre& fibre = engine.fibres[i];
        if (fibre.top) continue;
        char* at = map(page + STACK);
        mprotect(at, page, PROT_NONE);
        // Tops at different offsets within their page, since a first-level cache has few places for equal offsets.
        fibre.top = at + page + STACK - i % 16 * 256;
    }
}

// Static shared memory is `static thread_local`, see __shared__. Thread-local variables without an initial value lie together, at the end of this
// module's thread-local block, and nothing else of the emulator is one, so they can be poisoned without a list of them.
inline thread_local char static_shared_anchor[16];
inline void find_statics() {
    engine.statics = engine.statics_end = nullptr;
    char* anchor = static_shared_anchor;
    asm volatile("" : "+r"(anchor)::"memory"); // touches the block, which a thread may not have yet
    *static_cast<volatile char*>(anchor) = 0;
    dl_iterate_phdr(
        [](dl_phdr_info* module, size_t, void* anchor) {
            for (int i = 0; i < module->dlpi_phnum; i++) {
                const auto& part = module->dlpi_phdr[i];
                char* block = static_cast<char*>(module->dlpi_tls_data);
                if (part.p_type != PT_TLS || !block || anchor < block || anchor >= block + part.p_memsz) continue;
                engine.statics = block + part.p_filesz;
                engine.statics_end = block + part.p_memsz;
                return 1;
            }
            return 0;
        },
        anchor);
}

inline bool is_shared(const void* at, size_t bytes) {
    const char *begin = static_cast<const char*>(at), *end = begin + bytes;
    return (begin >= engine.shared && end <= engine.shared + engine.shared_bytes) || (begin >= engine.statics && end <= engine.statics_end);
}

// Who waits where, a few of them.
inline std::string report_deadlock() {
    std::string text = place() + ": deadlock, " + std::to_string(engine.live) + " of " + std::to_string(engine.threads) + " threads wait:";
    const Fibre* said[4];
    unsigned count = 0;
    for (unsigned i = 0; i < engine.threads && count < 4; i++) {
        const Fibre& f = engine.fibres[i];
        const Warp& w = engine.warps[i / LANES];
        if (!(w.live >> i % LANES & 1)) continue;
        bool known = false;
        for (unsigned k = 0; k < count; k++) known |= said[k]->site.same(f.site) && said[k]->mask == f.mask;
        if (known) continue;
        said[count++] = &f;
        char line[256];
        std::snprintf(line, sizeof line, " thread %u in %s at %s:%d", i, f.site.what, file_name(f.site.file), f.site.line);
        text += line;
        if (f.mask) {
            std::snprintf(line, sizeof line, " (mask %08x, lanes that have returned or do not exist %08x)", f.mask, f.mask & ~w.live);
            text += line;
        }
        text += ";";
    }
    return text;
}

inline void run_block() {
    Engine& e = engine;
    e.live = e.threads;
    e.arrived = 0;
    e.votes = {};
    e.ready_warps = 0;
    for (unsigned i = 0; i < e.threads; i++) {
        Fibre& f = e.fibres[i];
        f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
        f.copies.clear();
        f.groups.clear();
        prepare(f);
    }
    for (unsigned w = 0; w * LANES < e.threads; w++) {
        const unsigned lanes = e.threads - w * LANES;
        e.warps[w].live = e.warps[w].ready = lanes >= LANES ? ~0u : (1u << lanes) - 1;
        for (Round& round : e.warps[w].rounds) round.arrived = round.unread = 0;
        e.ready_warps |= 1u << w;
    }
    const unsigned warp = first(e.ready_warps);
    go_to(&e.host, warp * LANES + first(e.warps[warp].ready));
    if (e.result.ok() && e.live) e.result = {Status::DEADLOCK, report_deadlock()};
}

// All blocks, in the order of the fibres. Static shared memory of all kernels is poisoned before the first block, before the others only the part
// that the first one has written.
inline void run_grid() {
    Engine& e = engine;
    char *begin = e.statics, *end = e.statics_end;
    const uint64_t blocks = uint64_t(gridDim.x) * gridDim.y * gridDim.z;
    for (uint64_t i = 0; i < blocks && e.result.ok(); i++) {
        const uint64_t block = e.order == Order::FORWARD ? i : blocks - 1 - i;
        blockIdx = {unsigned(block % gridDim.x), unsigned(block / gridDim.x % gridDim.y), unsigned(block / gridDim.x / gridDim.y)};
        std::memset(e.shared, POISON, e.shared_bytes);
        if (begin != end) std::memset(begin, POISON, end - begin);
        run_block();
        if (i != 0) continue;
        const auto clean = [](char c) { return static_cast<unsigned char>(c) == POISON; };
        while (begin != end && clean(*begin)) begin++;
        while (end != begin && clean(end[-1])) end--;
    }
}

// --- faults ------------------------------------------------------------------------------------------------------------------------------

// While a kernel runs, a signal of its thread ends the launch. Others' signals go to whoever had installed a handler before.
class FaultGuard {
    static constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    static constexpr int COUNT = sizeof SIGNALS / sizeof *SIGNALS;
    static inline struct sigaction previous[COUNT];
    static inline char handler_stack[64 << 10];
    bool own_stack = false;

    static void handle(int signal, siginfo_t* info, void* context) {
        if (!engine.running || !pthread_equal(engine.thread, pthread_self())) {
            for (int k = 0; k < COUNT; k++) {
                if (SIGNALS[k] == signal) sigaction(signal, &previous[k], nullptr);
            }
            return; // the instruction runs, and fails, again
        }
        engine.signal = signal;
        engine.fault_address = info->si_addr;
        const ucontext_t* at = static_cast<ucontext_t*>(context);
#if defined(__x86_64__)
        engine.fault_code = reinterpret_cast<void*>(at->uc_mcontext.gregs[REG_RIP]);
#else
        engine.fault_code = reinterpret_cast<void*>(at->uc_mcontext.pc);
#endif
        siglongjmp(engine.escape, 1);
    }

public:
    FaultGuard() {
        stack_t stack = {};
        sigaltstack(nullptr, &stack);
        if (stack.ss_flags & SS_DISABLE) { // a fibre's stack may be what has run out
            stack.ss_flags = 0;
            stack.ss_sp = handler_stack;
            stack.ss_size = sizeof handler_stack;
            sigaltstack(&stack, nullptr);
            own_stack = true;
        }
        struct sigaction action = {};
        action.sa_sigaction = handle;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int k = 0; k < COUNT; k++) sigaction(SIGNALS[k], &action, &previous[k]);
    }
    ~FaultGuard() {
        for (int k = 0; k < COUNT; k++) sigaction(SIGNALS[k], &previous[k], nullptr);
        if (own_stack) {
            stack_t stack = {};
            stack.ss_flags = SS_DISABLE;
            sigaltstack(&stack, nullptr);
        }
    }
};

inline std::string report_fault() {
    const int signal = engine.signal;
    Dl_info module = {};
    void* const code = engine.fault_code;
    dladdr(code, &module);
    char text[512];
    std::snprintf(text, sizeof text, ", thread %u: %s, address %p, code at %s+0x%zx", engine.current,
                  signal == SIGFPE                        ? "division by zero"
                  : signal == SIGILL || signal == SIGTRAP ? "trap (misaligned or out-of-bounds access, where compiled with such checks)"
                                                          : "invalid memory access",
                  engine.fault_address, module.dli_fname ? file_name(module.dli_fname) : "?",
                  static_cast<size_t>(static_cast<char*>(code) - static_cast<char*>(module.dli_fbase)));
    return place() + text;
}

// --- launches ----------------------------------------------------------------------------------------------------------------------------

// Runs a kernel with parameters as cuLaunchKernel takes them: the addresses of the values. Dynamic shared memory ends right before an inaccessible
// page in forward order and starts right behind one in reverse order.
inline Result launch(const char* name, dim3 grid, dim3 block, size_t shared, void** arguments, Order order = Order::FORWARD,
                     size_t shared_limit = 99 << 10) {
    const auto kernel = kernels().find(name);
    if (kernel == kernels().end()) return {Status::INVALID, std::string("there is no kernel ") + name};
    const auto invalid = [&](const char* what) { return Result{Status::INVALID, std::string("kernel ") + name + ": " + what}; };
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (block.x > 1024 || block.y > 1024 || block.z > 64 || threads == 0 || threads > MOST_THREADS) return invalid("block of 0 or too many threads");
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return invalid("empty grid");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return invalid("grid too large");
    if (shared > shared_limit || shared > MOST_SHARED) return invalid("too much dynamic shared memory");

    Engine& e = engine;
    const std::lock_guard<std::mutex> one_at_a_time(e.lock);
    provide(static_cast<unsigned>(threads));
    find_statics();
    e.name = name;
    e.kernel = &kernel->second;
    e.arguments = arguments;
    e.order = order;
    e.result = {};
    e.threads = static_cast<unsigned>(threads);
    e.shared_bytes = shared;
    e.shared = order == Order::FORWARD ? e.area + MOST_SHARED - (shared + 15) / 16 * 16 : e.area;
    gridDim = grid;
    blockDim = block;
    const FaultGuard guard;
    e.thread = pthread_self();
    if (sigsetjmp(e.escape, 1) == 0) {
        e.running = true;
        run_grid();
    } else {
        e.result = {Status::FAULT, report_fault()};
    }
    e.running = false;
    return e.result;
}

// The same with the values themselves, whose sizes are compared to those of the kernel's parameters.
template <class... Values>
inline Result run(const char* name, dim3 grid, dim3 block, size_t shared, Order order, Values... values) {
    const auto kernel = kernels().find(name);
    if (kernel != kernels().end() && kernel->second.sizes != std::vector<size_t>{sizeof(Values)...}) {
        return {Status::INVALID, std::string("kernel ") + name + ": number or sizes of the values differ from its parameters"};
    }
    void* arguments[] = {static_cast<void*>(&values)..., nullptr};
    return launch(name, grid, block, shared, arguments, order, MOST_SHARED);
}

// --- registration ------------------------------------------------------------------------------------------------------------------------

template <auto Function>
struct Thread;
template <class... Parameters, void (*Function)(Parameters...)>
struct Thread<Function> {
    template <size_t... I>
    static void call_with(void** arguments, std::index_sequence<I...>) {
        Function(*static_cast<Parameters*>(arguments[I])...);
    }
    static void call(void** arguments) { call_with(arguments, std::index_sequence_for<Parameters...>()); }
    static Kernel kernel() { return {&call, {sizeof(Parameters)...}}; }
};

struct Registration {
    Registration(const char* name, Kernel kernel) { kernels()[name] = std::move(kernel); }
};

} // namespace emu
