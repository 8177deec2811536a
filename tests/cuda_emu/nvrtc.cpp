// A stand-in for libnvrtc.so. It compiles nothing: the emulator runs kernels that build.sh has compiled. It refuses sources that are not those, and
// gives a text in place of a cubin.
#include <stdlib.h>
#include <string.h>

#include <map>
#include <string>

#include "sources.inc" // SOURCES: name and bytes of each file that the emulator was built from

#define API extern "C" __attribute__((visibility("default"))) int

namespace {
enum : int { SUCCESS = 0, INVALID_INPUT = 3, COMPILATION = 6 };
struct Program {
    std::map<std::string, size_t> files;
    std::string source, log, cubin;
};
} // namespace

API nvrtcVersion(int* major, int* minor) { return *major = 11, *minor = 8, SUCCESS; }
API nvrtcCreateProgram(void** made, const char* source, const char*, int count, const char* const* bodies, const char* const* names) {
    if (!source || count < 0) return INVALID_INPUT;
    auto* program = new Program;
    program->source = source;
    for (int i = 0; i < count; i++) program->files[names[i]] = strlen(bodies[i]);
    return *made = program, SUCCESS;
}
API nvrtcDestroyProgram(void** made) { return delete static_cast<Program*>(*made), *made = nullptr, SUCCESS; }
API nvrtcCompileProgram(void* made, int count, const char* const* options) {
    auto* program = static_cast<Program*>(made);
    const char* knobs = getenv("LLMAR_EMU");
    if (knobs && strstr(knobs, "nvrtc_fail=1")) return program->log = "the emulator was told to fail", COMPILATION;
    for (const auto& file : SOURCES) {
        if (program->files[file.name] != file.bytes) {
            return program->log = std::string(file.name) + " is not the file that the emulator was built from", COMPILATION;
        }
        const std::string name = file.name;
        if (name.substr(name.size() - 3) == ".cu" && program->source.find("#include \"" + name + "\"") == std::string::npos) {
            return program->log = "the program does not include " + name, COMPILATION;
        }
    }
    program->cubin = "emulated";
    for (int i = 0; i < count; i++) program->cubin += std::string(" ") + options[i];
    return SUCCESS;
}
API nvrtcGetProgramLogSize(void* made, size_t* bytes) { return *bytes = static_cast<Program*>(made)->log.size() + 1, SUCCESS; }
API nvrtcGetProgramLog(void* made, char* log) { return strcpy(log, static_cast<Program*>(made)->log.c_str()), SUCCESS; }
API nvrtcGetCUBINSize(void* made, size_t* bytes) { return *bytes = static_cast<Program*>(made)->cubin.size() + 1, SUCCESS; }
API nvrtcGetCUBIN(void* made, char* cubin) { return strcpy(cubin, static_cast<Program*>(made)->cubin.c_str()), SUCCESS; }
API nvrtcGetPTXSize(void* made, size_t* bytes) { return nvrtcGetCUBINSize(made, bytes); }
API nvrtcGetPTX(void* made, char* ptx) { return nvrtcGetCUBIN(made, ptx); }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int) { return "an error of the emulator"; }
