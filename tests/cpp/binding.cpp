// bindings/cpp/llmar.hpp, all of it, with exceptions. Arguments: MODEL. SPDX-License-Identifier: MIT OR Apache-2.0
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "llmar.hpp"

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);   \
            std::exit(1);                                                                    \
        }                                                                                    \
    } while (0)

// Counts what this program allocates; the library has an allocator of its own.
static thread_local std::size_t allocations = 0;
void *operator new(std::size_t size)
{
    allocations++;
    if (void *got = std::malloc(size == 0 ? 1 : size)) {
        return got;
    }
    throw std::bad_alloc();
}
void operator delete(void *what) noexcept { std::free(what); }
void operator delete(void *what, std::size_t) noexcept { std::free(what); }

// The form without exceptions, in a file of its own.
int without_exceptions(const char *model_path);

namespace {

constexpr std::size_t joints = 20, frames = 40;

std::vector<float> motion(unsigned seed)
{
    std::vector<float> out;
    for (std::size_t t = 0; t < frames; t++) {
        for (std::size_t j = 0; j < joints; j++) {
            const float phase = 0.1F * static_cast<float>(t) + 0.7F * static_cast<float>(j) + static_cast<float>(seed);
            out.push_back(0.2F * std::sin(phase));
            out.push_back(1.8F - 0.09F * static_cast<float>(j));
            out.push_back(2.5F + 0.15F * std::cos(phase));
        }
    }
    return out;
}

template <class F> llmar_status status_of(F call)
{
    try {
        call();
    } catch (const llmar::Error &error) {
        CHECK(error.what()[0] != '\0');
        return error.status();
    }
    return LLMAR_OK;
}

void models(const char *path)
{
    llmar::Model model = llmar::Model::open(path);
    const llmar::ModelInfo info = model.info();
    CHECK(std::string_view(info.name) == "tiny" && info.joints == joints && model.label_count() == 4 && model.label(2) == "wave");
    CHECK(status_of([&] { model.label(4); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    CHECK(status_of([] { llmar::Model::open("/nowhere"); }) == LLMAR_ERROR_IO);
    char words[16];
    CHECK(llmar::last_error(words).size() == 15); // cut
    CHECK(llmar::last_error({}).empty());
    llmar::ModelParams params;
    params.device = "toaster";
    CHECK(status_of([&] { llmar::Model::open(path, params); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    llmar::Model::verify(path);

    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const llmar::Span<const std::uint8_t> view(reinterpret_cast<const std::uint8_t *>(bytes.data()), bytes.size());
    llmar::Model copy = llmar::Model::open_memory(view);
    CHECK(copy.label(0) == "walk");
    CHECK(status_of([&] { llmar::Model::open_memory(view.first(100)); }) == LLMAR_ERROR_FORMAT);

    llmar::Model moved = std::move(copy);
    CHECK(copy.get() == nullptr && moved.label_count() == 4);
    CHECK(status_of([&] { copy.info(); }) == LLMAR_ERROR_NULL_POINTER);
    const llmar::Model second = moved.share();
    moved = std::move(model);
    CHECK(second.label(1) == "sit down" && llmar::abi_fits() && !llmar::version().empty());
}

void clips(const llmar::Model &model)
{
    llmar::Recognizer recognizer = llmar::Recognizer::create(model);
    const std::vector<float> values = motion(1);
    const llmar::Clip clip(values, frames, 1, joints, "kinect1_20", 30.0F);
    const std::uint32_t token_count = model.info().token_count;
    llmar::Answers room(3, 4, token_count);
    recognizer.recognize(clip, room);
    const std::size_t before = allocations;
    const llmar::Answer answer = recognizer.recognize(clip, room, llmar::Limits(std::chrono::seconds(60)));
    CHECK(allocations == before);
    CHECK(answer.top().size() == 4 && answer.top()[0].probability >= answer.top()[1].probability && !answer.unknown());
    CHECK(answer.tokens().size() == token_count && answer.missing() == 0.0F && answer.prompt_time().count() > 0);
    const float best = answer.top()[0].log_prob;

    std::vector<std::uint16_t> tokens(token_count);
    float missing = 1.0F;
    const llmar::Span<std::uint16_t> sentence = recognizer.tokenize(clip, tokens, &missing);
    CHECK(sentence.size() == token_count && missing == 0.0F && sentence[0] == answer.tokens()[0]);

    const std::vector<float> other = motion(2);
    std::vector<std::uint64_t> times;
    for (std::size_t t = 0; t < frames; t++) {
        times.push_back(t * 33'000'000U);
    }
    const std::vector<std::uint8_t> valid(frames * joints, 1);
    const std::array<llmar::Clip, 2> both = {clip, llmar::Clip(other, frames, 1, joints, "kinect1_20").at(times).with_valid(valid)};
    recognizer.recognize(both, room);
    CHECK(room[0].top()[0].log_prob == best && room[1].top().size() == 4);

    llmar::Answers one;
    CHECK(status_of([&] { recognizer.recognize(both, one); }) == LLMAR_ERROR_BUFFER_TOO_SMALL);
    llmar::Answers none(0);
    CHECK(status_of([&] { recognizer.recognize(clip, none); }) == LLMAR_ERROR_BUFFER_TOO_SMALL);
    const llmar::Clip sizes[] = {llmar::Clip(values, frames + 1, 1, joints, "kinect1_20"),
                                 llmar::Clip(values, frames, 1, joints, "kinect1_20", 0.0F, 2),
                                 llmar::Clip(values, frames, 1, joints, "kinect1_20").at(llmar::Span<const std::uint64_t>(times).first(3)),
                                 llmar::Clip(values, frames, 1, joints, "kinect1_20").with_valid(llmar::Span<const std::uint8_t>(valid).first(3))};
    for (const llmar::Clip &wrong : sizes) {
        CHECK(status_of([&] { recognizer.recognize(wrong, room); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    }
    CHECK(status_of([&] { recognizer.recognize(llmar::Clip(values, frames, 1, joints, "nobody"), room); }) == LLMAR_ERROR_UNKNOWN_LAYOUT);

    llmar::RecognizerParams by_words;
    by_words.scoring = LLMAR_SCORING_WORDS; // of which this model has no reading
    CHECK(status_of([&] { llmar::Recognizer::create(model, by_words); }) == LLMAR_ERROR_UNSUPPORTED);
    recognizer.set_labels(std::vector<std::string>{"jump", "wave"});
    CHECK(recognizer.recognize(clip, room).top().size() == 2);
    CHECK(status_of([&] { recognizer.set_labels(std::vector<const char *>{}); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    const float alone = recognizer.recognize(clip, room).top()[0].probability;
    const std::array<llmar::Clip, 1> others = {clip};
    recognizer.balance(others);
    CHECK(std::abs(recognizer.recognize(clip, room).top()[0].probability - 0.5F) < 1e-5F); // the measure itself: nothing is left
    CHECK(status_of([&] { recognizer.balance({}); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    recognizer.reset_balance();
    CHECK(recognizer.recognize(clip, room).top()[0].probability == alone);
    recognizer.balance(others);
    recognizer.reset_labels();
    CHECK(recognizer.recognize(clip, room).top()[0].log_prob == best);

    llmar::CancelToken cancel = llmar::CancelToken::create();
    std::thread([&] { cancel.request(); }).join();
    CHECK(status_of([&] { recognizer.recognize(clip, room, llmar::Limits(cancel)); }) == LLMAR_ERROR_CANCELLED);
    cancel.clear();
    recognizer.recognize(clip, room, llmar::Limits(cancel));
    CHECK(status_of([&] { recognizer.recognize(clip, room, llmar::Limits(std::chrono::nanoseconds(-5))); }) == LLMAR_ERROR_DEADLINE_EXCEEDED);
}

void streams(const llmar::Model &model)
{
    llmar::StreamParams params;
    params.max_bodies = 2;
    params.begin_at = 0.01F;
    params.end_below = 0.005F;
    llmar::Stream stream = llmar::Stream::create(model, params);
    CHECK(stream.coords() == 3);
    const std::vector<float> values = motion(3);
    std::array<llmar::Event, 16> room;
    std::size_t decisions = 0, begins = 0, ends = 0, forgotten = 0;
    const auto count = [&](llmar::Span<llmar::Event> events) {
        for (const llmar::Event &event : events) {
            CHECK(event.body() == 7 && event.c().struct_size == sizeof(llmar_event));
            decisions += event.kind() == llmar::EventKind::decision;
            begins += event.kind() == llmar::EventKind::begin;
            ends += event.kind() == llmar::EventKind::end;
            forgotten += event.kind() == llmar::EventKind::forgotten;
            if (event.kind() == llmar::EventKind::decision) {
                CHECK(event.label() && event.top().size() == 3 && event.top()[0].label == *event.label() && event.tokens() > 0);
                CHECK(event.start_ns() < event.time_ns() && event.missing() == 0.0F && !event.joint_missing(0) && event.latency().count() > 0);
            } else if (event.kind() == llmar::EventKind::forgotten) {
                CHECK(!event.label());
            }
        }
    };
    for (std::size_t t = 0; t < frames; t++) {
        const llmar::Span<const float> frame(&values[t * joints * 3], joints * 3);
        const std::size_t before = allocations;
        stream.push(7, t * 100'000'000U, frame);
        const llmar::Span<llmar::Event> events = stream.poll(room);
        CHECK(allocations == before);
        count(events);
    }
    const llmar::Span<const float> frame(values.data(), joints * 3);
    CHECK(status_of([&] { stream.push(7, 5, frame); }) == LLMAR_ERROR_BACKWARD_TIME);
    CHECK(status_of([&] { stream.push(7, 4'000'000'000U, frame.first(30)); }) == LLMAR_ERROR_SHAPE);
    CHECK(status_of([&] { stream.push(7, 4'000'000'000U, frame.first(31)); }) == LLMAR_ERROR_SHAPE);

    const std::vector<float> sure(joints, 1.0F);
    const std::vector<std::uint8_t> seen(joints, 1);
    std::array<llmar::Pose, 3> poses = {stream.pose(7, 4'000'000'000U, frame).with_confidence(sure).with_valid(seen),
                                        stream.pose(7, 4'000'000'000U, frame),
                                        stream.pose(7, 4'100'000'000U, frame).with_valid(llmar::Span<const std::uint8_t>(seen).first(3))};
    std::array<llmar_status, 3> statuses{};
    CHECK(stream.try_push(poses, llmar::Span<llmar_status>(statuses).first(2)).code() == LLMAR_ERROR_BUFFER_TOO_SMALL);
    const llmar::Status first = stream.try_push(poses, statuses);
    CHECK(first.code() == LLMAR_ERROR_DUPLICATE_TIME && !first && !first.text().empty());
    CHECK(statuses[0] == LLMAR_OK && statuses[1] == LLMAR_ERROR_DUPLICATE_TIME && statuses[2] == LLMAR_ERROR_SHAPE);
    CHECK(status_of([&] { stream.push(poses); }) == LLMAR_ERROR_DUPLICATE_TIME);
    CHECK(status_of([&] { stream.state_size(); }) == LLMAR_ERROR_QUEUE_FULL); // a frame waits
    stream.flush();
    count(stream.poll(room));
    CHECK(stream.poll(llmar::Span<llmar::Event>()).empty());
    stream.wait();

    std::vector<std::uint8_t> state(stream.state_size());
    CHECK(stream.save(state).size() == state.size());
    stream.load(state);
    stream.advance(8'000'000'000U);
    count(stream.poll(room));
    CHECK(decisions > 3 && begins > 0 && begins == ends && forgotten == 1);
    CHECK(status_of([&] { stream.advance(1); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    CHECK(status_of([&] { stream.remove_body(7); }) == LLMAR_ERROR_UNKNOWN_BODY);
    const llmar::StreamStats stats = stream.stats();
    CHECK(stats.frames == frames + 1 && stats.decisions == decisions && stats.refused_frames >= 3 && stats.latency.p50_ns > 0);
    stream.reset_stats();
    CHECK(stream.stats().frames == 0);

    const std::array<std::uint8_t, 4> only_wave = {0, 0, 1, 0}, nobody = {0, 0, 0, 0};
    stream.filter_labels(only_wave);
    CHECK(stream.label_state(0) == llmar::LabelState::denied && stream.label_state(2) == llmar::LabelState::allowed);
    CHECK(status_of([&] { stream.filter_labels(nobody); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    CHECK(status_of([&] { stream.filter_labels({}); }) == LLMAR_ERROR_SHAPE);
    CHECK(status_of([&] { stream.label_state(4); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    stream.lift_filter();
    CHECK(stream.label_state(0) == llmar::LabelState::allowed);
    stream.set_labels(std::array<const char *, 2>{"hop", "skip"});
    CHECK(status_of([&] { stream.label_state(2); }) == LLMAR_ERROR_INVALID_ARGUMENT);
    stream.reset_labels();
    stream.reset();
    stream.push(8, 0, frame);
    stream.remove_body(8);

    llmar::Stream moved = std::move(stream);
    CHECK(status_of([&] { stream.flush(); }) == LLMAR_ERROR_NULL_POINTER);
    moved.flush();
    params.layout = "nobody";
    CHECK(status_of([&] { llmar::Stream::create(model, params); }) == LLMAR_ERROR_UNKNOWN_LAYOUT);
}

void layouts_and_messages(const char *path)
{
    bool found = false;
    for (std::size_t i = 0; i < llmar::layout_count(); i++) {
        found = found || llmar::layout_name(i) == "ntu25";
    }
    CHECK(found && llmar::joint_count("ntu25") == 25 && !llmar::joint_name("ntu25", 24).empty());
    CHECK(status_of([] { llmar::joint_count("nobody"); }) == LLMAR_ERROR_UNKNOWN_LAYOUT);
    llmar::register_layout("two_hands", std::vector<std::string>{"hand_left", "hand_right"});
    CHECK(llmar::joint_count("two_hands") == 2);

    std::size_t messages = 0;
    auto receive = [&](llmar_log_level level, std::string_view text) {
        CHECK(level >= 1 && level <= LLMAR_LOG_DEBUG && !text.empty());
        messages++;
        throw 5; // dropped
    };
    llmar::set_log(receive, LLMAR_LOG_DEBUG);
    llmar::Model::open(path);
    CHECK(status_of([] { llmar::Model::open("/nowhere"); }) == LLMAR_ERROR_IO);
    llmar::clear_log();
    const std::size_t got = messages;
    CHECK(got >= 2);
    llmar::Model::open(path);
    CHECK(messages == got);
}

} // namespace

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    models(argv[1]);
    llmar::Model model = llmar::Model::open(argv[1]);
    clips(model);
    streams(model);
    layouts_and_messages(argv[1]);
    return without_exceptions(argv[1]);
}
