// Tells what the people of a clip do while it plays:
//
//   stream MODEL.llmar CLIP.txt [--real-time]
//
// Every person is a body of a stream, and every event is a line. --real-time plays the clip at its speed, otherwise it goes as fast as it
// can. The same program is there in C, Rust and Python. CLIP.txt: see examples/c/clip_text.h.
//
//   c++ -std=c++17 -O2 -Iinclude -Ibindings/cpp -o stream examples/cpp/stream.cpp -lllmar
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#include <algorithm>
#include <array>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "llmar.hpp"

namespace {

struct ClipText {
    std::string layout;
    std::size_t frames = 0, persons = 0, joints = 0, coords = 0;
    float fps = 0.0F;
    std::vector<float> values; // frames * persons * joints * coords
};

ClipText read_clip(const std::string &path)
{
    ClipText clip;
    std::ifstream file(path);
    std::string word;
    if (!(file >> clip.layout >> clip.frames >> clip.persons >> clip.joints >> clip.coords >> clip.fps)) {
        throw std::runtime_error(path + ": expected `layout frames persons joints coords fps`");
    }
    while (file >> word) {
        char *end = nullptr;
        clip.values.push_back(std::strtof(word.c_str(), &end)); // nan as well, which >> does not read
        if (*end != '\0') {
            throw std::runtime_error(path + ": `" + word + "` is not a number");
        }
    }
    // Checked in this form, so that nothing overflows.
    std::size_t left = clip.values.size();
    for (const std::size_t factor : {clip.frames, clip.persons, clip.joints, clip.coords}) {
        left = factor > 0 && left % factor == 0 ? left / factor : 0;
    }
    if (left != 1) {
        throw std::runtime_error(path + ": not the numbers that its first line says");
    }
    return clip;
}

double seconds(std::uint64_t ns) { return static_cast<double>(ns) / 1e9; }

void print(const llmar::Model &model, const llmar::Event &event)
{
    const std::string label(event.label() ? model.label(*event.label()) : "?");
    const double probability = static_cast<double>(event.probability());
    std::printf("%7.3f body %" PRIu64 " ", seconds(event.time_ns()), event.body());
    switch (event.kind()) {
    case llmar::EventKind::decision:
        std::printf("decision %s %.2f", label.c_str(), probability);
        for (std::size_t i = 1; i < event.top().size(); i++) {
            const llmar::LabelScore &other = event.top()[i];
            std::printf(", %s %.2f", std::string(model.label(other.label)).c_str(), static_cast<double>(other.probability));
        }
        std::printf("%s\n", event.unknown() ? " (unknown)" : "");
        break;
    case llmar::EventKind::begin:
        std::printf("begin %s %.2f from %.3f\n", label.c_str(), probability, seconds(event.start_ns()));
        break;
    case llmar::EventKind::end:
        std::printf("end %s %.2f from %.3f to %.3f\n", label.c_str(), probability, seconds(event.start_ns()), seconds(event.end_ns()));
        break;
    case llmar::EventKind::forgotten:
        std::printf("forgotten\n");
        break;
    }
}

void poll_all(const llmar::Model &model, llmar::Stream &stream)
{
    std::array<llmar::Event, 16> room;
    llmar::Span<llmar::Event> events;
    do {
        events = stream.poll(room);
        for (const llmar::Event &event : events) {
            print(model, event);
        }
    } while (events.size() == room.size());
    std::fflush(stdout);
}

void run(const char *model_path, const char *clip_path, bool real_time)
{
    const ClipText clip = read_clip(clip_path);
    const llmar::Model model = llmar::Model::open(model_path);
    if (clip.coords != model.info().coords) {
        throw std::runtime_error("the clip has another number of coordinates than the model");
    }
    llmar::StreamParams params;
    params.layout = clip.layout.c_str();
    params.max_bodies = static_cast<std::uint32_t>(clip.persons);
    llmar::Stream stream = llmar::Stream::create(model, params);

    const std::size_t width = clip.joints * clip.coords;
    const double fps = clip.fps > 0.0F ? static_cast<double>(clip.fps) : 30.0;
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t t = 0; t < clip.frames; t++) {
        const auto time_ns = static_cast<std::uint64_t>(static_cast<double>(t) * 1e9 / fps);
        if (real_time) {
            std::this_thread::sleep_until(begin + std::chrono::nanoseconds(time_ns));
        }
        for (std::size_t person = 0; person < clip.persons; person++) {
            const llmar::Span<const float> joints(&clip.values[(t * clip.persons + person) * width], width);
            // A person of whom nothing is seen is not there.
            if (std::any_of(joints.begin(), joints.end(), [](float x) { return std::isfinite(x); })) {
                stream.push(person, time_ns, joints);
            }
        }
        poll_all(model, stream);
    }
    stream.flush();
    poll_all(model, stream);
}

} // namespace

int main(int argc, char **argv)
{
    const bool real_time = argc == 4 && std::string(argv[3]) == "--real-time";
    if (argc != 3 && !real_time) {
        std::fprintf(stderr, "usage: stream MODEL.llmar CLIP.txt [--real-time]\n");
        return 1;
    }
    try {
        run(argv[1], argv[2], real_time);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "stream: %s\n", error.what());
        return 1;
    }
    return 0;
}
