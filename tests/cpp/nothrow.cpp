// bindings/cpp/llmar.hpp without exceptions and run-time types; linked with binding.cpp, which has them. SPDX-License-Identifier: MIT OR Apache-2.0
#define LLMAR_NO_EXCEPTIONS
#include <array>
#include <cmath>
#include <vector>

#include "llmar.hpp"

int without_exceptions(const char *model_path);

/* 0, or the number of the step that went wrong. */
int without_exceptions(const char *model_path)
{
    llmar::Result<llmar::Model> missing = llmar::Model::open("/nowhere");
    std::array<char, 200> words{};
    if (missing || missing.status().code() != LLMAR_ERROR_IO || llmar::last_error(words).empty()) {
        return 2;
    }
    llmar::Result<llmar::Model> opened = llmar::Model::open(model_path);
    if (!opened) {
        return 3;
    }
    llmar::Model model = opened.take();
    if (model.label(9).status().code() != LLMAR_ERROR_INVALID_ARGUMENT || *model.label(0) != "walk" || model.info()->joints != 20) {
        return 4;
    }
    llmar::Result<llmar::Stream> made = llmar::Stream::create(model);
    if (!made) {
        return 5;
    }
    llmar::Stream &stream = *made;
    std::vector<float> joints(60);
    std::array<llmar::Event, 8> room;
    std::size_t events = 0;
    for (unsigned t = 0; t < 40; t++) {
        for (std::size_t i = 0; i < joints.size(); i++) {
            joints[i] = std::sin(0.37F * static_cast<float>(i) + 0.1F * static_cast<float>(t));
        }
        if (!stream.push(1, std::uint64_t{t} * 100'000'000U, joints)) {
            return 6;
        }
        const llmar::Result<llmar::Span<llmar::Event>> polled = stream.poll(room);
        if (!polled) {
            return 7;
        }
        events += polled->size();
    }
    if (events == 0 || stream.push(1, 0, joints).code() != LLMAR_ERROR_BACKWARD_TIME || !stream.flush() || stream.stats()->frames != 40) {
        return 8;
    }
    llmar::Result<llmar::Recognizer> recognizer = llmar::Recognizer::create(model);
    llmar::Answers answers;
    const std::vector<float> values(60 * 30, 0.5F);
    const llmar::Clip clip(values, 30, 1, 20, "kinect1_20", 30.0F);
    const llmar::Result<llmar::Answer> answer = recognizer->recognize(clip, answers);
    llmar::Answers none(0);
    if (!answer || answer->top().size() != 4 || recognizer->recognize(clip, none).status().code() != LLMAR_ERROR_BUFFER_TOO_SMALL) {
        return 9;
    }
    const llmar::Result<llmar::CancelToken> cancel = llmar::CancelToken::create();
    if (!cancel || !cancel->request() || stream.poll(room, llmar::Limits(*cancel)).status().code() != LLMAR_ERROR_CANCELLED) {
        return 10;
    }
    return *llmar::layout_count() > 3 ? 0 : 11;
}
