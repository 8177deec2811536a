// A stand-in for libcuda.so over the emulator: as much of the driver API as cudarc's safe layer calls for contexts, streams, memory, modules, launches,
// events and graphs. README.md lists the knobs of LLMAR_EMU.
//
// Work runs at once, when it is put on a stream; what goes wrong in a kernel comes out at the next call that waits, as on a GPU, and from then on every
// call of that device fails with the same error.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>

#include "kernels.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

enum : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_TIMEOUT = 702,
    NOT_SUPPORTED = 801,
    UNKNOWN = 999,
};

// What LLMAR_EMU asks for.
struct Knobs {
    int devices = 2, driver = 12090, capability = 80;
    bool noinit = false;
    size_t memory = size_t(4) << 30;
    long fail_launch = -1;
    std::string log;

    Knobs() {
        const char* all = getenv("LLMAR_EMU");
        for (std::string rest = all ? all : ""; !rest.empty();) {
            const size_t comma = rest.find(',');
            const std::string one = rest.substr(0, comma);
            rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
            const size_t equals = one.find('=');
            const std::string name = one.substr(0, equals), value = equals == std::string::npos ? "1" : one.substr(equals + 1);
            if (name == "devices") devices = atoi(value.c_str());
            if (name == "driver") driver = atoi(value.c_str());
            if (name == "cc") capability = atoi(value.c_str());
            if (name == "noinit") noinit = value != "0";
            if (name == "memory") memory = strtoull(value.c_str(), nullptr, 10);
            if (name == "fail_launch") fail_launch = atol(value.c_str());
            if (name == "log") log = value;
        }
    }
};

const Knobs& knobs() {
    static const Knobs all;
    return all;
}

// A device is its own context.
struct Device {
    int ordinal;
    int failed = SUCCESS; // sticky
    size_t allocated = 0;
};

struct Graph {
    std::vector<std::function<int()>> work;
};

struct Stream {
    Device* device;
    Graph* recording = nullptr;
};

struct Function {
    std::string name;
    size_t most_shared = 48 << 10;
};

struct Buffer {
    char* area;
    size_t bytes, area_bytes;
    Device* device;
};

std::recursive_mutex lock;
using Lock = std::lock_guard<std::recursive_mutex>;
Device devices[8];
std::map<unsigned long long, Buffer> buffers;
std::map<std::string, std::unique_ptr<Function>> functions;
long launches = 0;
thread_local Device* current = nullptr;

Stream* stream_of(void* handle) {
    static Stream legacy{&devices[0]};
    return reinterpret_cast<size_t>(handle) <= 2 ? &legacy : static_cast<Stream*>(handle);
}

// Runs work now, or keeps it where the stream records.
int put(void* handle, std::function<int()> work) {
    const Lock held(lock);
    Stream* stream = stream_of(handle);
    if (stream->device->failed) return stream->device->failed;
    if (stream->recording) {
        stream->recording->work.push_back(std::move(work));
        return SUCCESS;
    }
    return work();
}

int waited(const Device* device) {
    const Lock held(lock);
    return device ? device->failed : SUCCESS;
}

// What most attributes of CU_DEVICE_ATTRIBUTE_ are asked for.
int attribute_of(int attribute) {
    const int cc = knobs().capability;
    switch (attribute) {
    case 1: return 1024;                          // threads of a block
    case 8: return 48 << 10;                      // shared memory of a block
    case 10: return 32;                           // lanes of a warp
    case 16: return 4;                            // multiprocessors
    case 75: return cc / 10;                      // compute capability
    case 76: return cc % 10;
    case 97: return (cc < 80 ? 64 : cc == 80 ? 163 : cc < 90 ? 99 : 227) << 10; // shared memory of a block that asks for it
    case 115: return 1;                           // memory pools
    default: return 0;
    }
}

} // namespace

API cuInit(unsigned) {
    if (knobs().noinit) return UNKNOWN;
    for (int i = 0; i < 8; i++) devices[i].ordinal = i;
    return SUCCESS;
}
API cuDriverGetVersion(int* version) { return *version = knobs().driver, SUCCESS; }
API cuDeviceGetCount(int* count) { return *count = knobs().devices, SUCCESS; }
API cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || ordinal >= knobs().devices || ordinal >= 8) return INVALID_DEVICE;
    return *device = ordinal, SUCCESS;
}
API cuDeviceGetName(char* name, int bytes, int device) {
    snprintf(name, bytes, "emulator, %s", device % 2 ? "backwards" : "forwards");
    return SUCCESS;
}
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = knobs().memory, SUCCESS; }
API cuDeviceGetAttribute(int* value, int attribute, int) { return *value = attribute_of(attribute), SUCCESS; }
API cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &devices[device], SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void* context) { return current = static_cast<Device*>(context), SUCCESS; }
API cuCtxGetCurrent(void** context) { return *context = current, SUCCESS; }
API cuCtxSynchronize() { return waited(current); }
API cuMemGetInfo_v2(size_t* available, size_t* all) {
    const Lock held(lock);
    if (!current) return INVALID_CONTEXT;
    *all = knobs().memory;
    *available = knobs().memory - current->allocated;
    return current->failed;
}

API cuStreamCreate(void** stream, unsigned) { return *stream = new Stream{current}, current ? SUCCESS : INVALID_CONTEXT; }
API cuStreamDestroy_v2(void* stream) {
    if (reinterpret_cast<size_t>(stream) > 2) delete static_cast<Stream*>(stream);
    return SUCCESS;
}
API cuStreamSynchronize(void* stream) { return waited(stream_of(stream)->device); }
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API cuStreamIsCapturing(void* stream, int* status) { return *status = stream_of(stream)->recording != nullptr, SUCCESS; }
API cuEventCreate(void** event, unsigned) { return *event = &devices, SUCCESS; }
API cuEventDestroy_v2(void*) { return SUCCESS; }
API cuEventRecord(void*, void*) { return SUCCESS; }
API cuEventSynchronize(void*) { return waited(current); }
API cuEventQuery(void*) { return waited(current); }
// Time on this device means nothing; it passes all the same.
API cuEventElapsedTime_v2(float* milliseconds, void*, void*) { return *milliseconds = 1, waited(current); }
API cuEventElapsedTime(float* milliseconds, void*, void*) { return *milliseconds = 1, waited(current); }

// A buffer ends right before an inaccessible page and is full of 0xff.
API cuMemAlloc_v2(unsigned long long* pointer, size_t bytes) {
    const Lock held(lock);
    if (!current) return INVALID_CONTEXT;
    if (current->failed) return current->failed;
    if (bytes > knobs().memory || current->allocated + bytes > knobs().memory) return OUT_OF_MEMORY;
    const size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    char* area = static_cast<char*>(mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (area == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(area + whole, page, PROT_NONE);
    char* start = area + whole - (bytes + 15) / 16 * 16;
    memset(start, 0xff, area + whole - start);
    *pointer = reinterpret_cast<unsigned long long>(start);
    buffers[*pointer] = {area, bytes, whole + page, current};
    current->allocated += bytes;
    return SUCCESS;
}
API cuMemAllocAsync(unsigned long long* pointer, size_t bytes, void* stream) {
    current = stream_of(stream)->device;
    return stream_of(stream)->recording ? NOT_SUPPORTED : cuMemAlloc_v2(pointer, bytes);
}
API cuMemFree_v2(unsigned long long pointer) {
    const Lock held(lock);
    const auto buffer = buffers.find(pointer);
    if (buffer == buffers.end()) return pointer ? INVALID_VALUE : SUCCESS;
    munmap(buffer->second.area, buffer->second.area_bytes);
    buffer->second.device->allocated -= buffer->second.bytes;
    buffers.erase(buffer);
    return SUCCESS;
}
API cuMemFreeAsync(unsigned long long pointer, void*) { return cuMemFree_v2(pointer); }
API cuMemHostAlloc(void** pointer, size_t bytes, unsigned) { return *pointer = malloc(bytes), *pointer ? SUCCESS : OUT_OF_MEMORY; }
API cuMemFreeHost(void* pointer) { return free(pointer), SUCCESS; }

// Whether a range lies in one buffer.
static bool inside(unsigned long long at, size_t bytes) {
    auto buffer = buffers.upper_bound(at);
    if (buffer == buffers.begin()) return false;
    --buffer;
    return at + bytes <= buffer->first + buffer->second.bytes;
}
static int copy(unsigned long long to, unsigned long long from, size_t bytes, bool to_device, bool from_device) {
    const Lock held(lock);
    if ((to_device && !inside(to, bytes)) || (from_device && !inside(from, bytes))) return INVALID_VALUE;
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return SUCCESS;
}
API cuMemsetD8Async(unsigned long long at, unsigned char value, size_t bytes, void* stream) {
    return put(stream, [=] { return inside(at, bytes) ? (memset(reinterpret_cast<void*>(at), value, bytes), SUCCESS) : INVALID_VALUE; });
}
API cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void* stream) {
    return put(stream, [=] { return copy(to, reinterpret_cast<unsigned long long>(from), bytes, true, false); });
}
API cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void* stream) {
    return put(stream, [=] { return copy(reinterpret_cast<unsigned long long>(to), from, bytes, false, true); });
}
API cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void* stream) {
    return put(stream, [=] { return copy(to, from, bytes, true, true); });
}

API cuModuleLoadData(void** module, const void* image) {
    if (!image || !*static_cast<const char*>(image)) return INVALID_IMAGE;
    return *module = &functions, SUCCESS;
}
API cuModuleUnload(void*) { return SUCCESS; }
API cuModuleGetFunction(void** function, void*, const char* name) {
    const Lock held(lock);
    if (!emu::kernel_sizes(name)) return NOT_FOUND;
    std::unique_ptr<Function>& known = functions[name];
    if (!known) known.reset(new Function{name});
    return *function = known.get(), SUCCESS;
}
API cuFuncGetAttribute(int* value, int, void*) { return *value = 0, SUCCESS; }
API cuFuncSetAttribute(void* function, int attribute, int value) {
    const Lock held(lock);
    if (attribute == 8) { // most dynamic shared memory
        if (value > attribute_of(97)) return INVALID_VALUE;
        static_cast<Function*>(function)->most_shared = value;
    }
    return SUCCESS;
}

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
                   void** arguments, void**) {
    const Function* f = static_cast<Function*>(function);
    Device* device = stream_of(stream)->device;
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || shared > f->most_shared || size_t(bx) * by * bz > 1024) return INVALID_VALUE;
    // The driver copies arguments at the launch.
    const std::vector<size_t>& sizes = *emu::kernel_sizes(f->name.c_str());
    std::vector<std::vector<char>> values;
    for (size_t i = 0; i < sizes.size(); i++) values.emplace_back(static_cast<char*>(arguments[i]), static_cast<char*>(arguments[i]) + sizes[i]);
    return put(stream, [=]() mutable {
        if (++launches == knobs().fail_launch) {
            device->failed = ILLEGAL_ADDRESS;
            return static_cast<int>(SUCCESS);
        }
        if (!knobs().log.empty()) {
            if (FILE* log = fopen(knobs().log.c_str(), "a")) {
                fprintf(log, "%s %u,%u,%u %u,%u,%u %u\n", f->name.c_str(), gx, gy, gz, bx, by, bz, shared);
                fclose(log);
            }
        }
        std::vector<void*> pointers;
        for (auto& value : values) pointers.push_back(value.data());
        const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
        const auto done = emu::run_kernel(f->name.c_str(), grid, block, shared, pointers.data(), device->ordinal % 2, f->most_shared);
        if (done.first) fprintf(stderr, "emulator: %s\n", done.second.c_str());
        if (done.first == 1) return static_cast<int>(INVALID_VALUE);
        if (done.first) device->failed = done.first == 2 ? ILLEGAL_ADDRESS : LAUNCH_TIMEOUT;
        return static_cast<int>(SUCCESS);
    });
}

API cuStreamBeginCapture_v2(void* stream, int) { return stream_of(stream)->recording = new Graph, waited(stream_of(stream)->device); }
API cuStreamEndCapture(void* stream, void** graph) {
    *graph = stream_of(stream)->recording;
    stream_of(stream)->recording = nullptr;
    return SUCCESS;
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    return *executable = new Graph(*static_cast<Graph*>(graph)), SUCCESS;
}
API cuGraphUpload(void*, void*) { return SUCCESS; }
API cuGraphLaunch(void* executable, void* stream) {
    const Lock held(lock);
    Device* device = stream_of(stream)->device;
    for (auto& work : static_cast<Graph*>(executable)->work) {
        if (device->failed) return device->failed;
        if (const int error = work()) return error;
    }
    return SUCCESS;
}
API cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), SUCCESS; }
API cuGraphExecDestroy(void* executable) { return delete static_cast<Graph*>(executable), SUCCESS; }

API cuGetErrorName(int error, const char** name) {
    switch (error) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case LAUNCH_TIMEOUT: *name = "CUDA_ERROR_LAUNCH_TIMEOUT"; break;
    default: *name = "CUDA_ERROR_OF_THE_EMULATOR";
    }
    return SUCCESS;
}
API cuGetErrorString(int error, const char** text) {
    switch (error) {
    case INVALID_VALUE: *text = "invalid argument"; break;
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case NOT_FOUND: *text = "no such kernel"; break;
    case ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
    case LAUNCH_TIMEOUT: *text = "the launch timed out"; break;
    default: *text = "an error of the emulator";
    }
    return SUCCESS;
}
