// The header from C++: one recognition, handles in unique_ptr. Argument: MODEL. SPDX-License-Identifier: MIT OR Apache-2.0
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "llmar.h"

namespace {

struct Free {
    void operator()(llmar_model *model) const { llmar_model_free(model); }
    void operator()(llmar_recognizer *recognizer) const { llmar_recognizer_free(recognizer); }
};

int fail(const char *where)
{
    std::string detail(llmar_last_error(nullptr, 0), '\0');
    llmar_last_error(&detail[0], detail.size());
    std::fprintf(stderr, "%s: %s\n", where, detail.c_str());
    return 1;
}

} // namespace

int main(int argc, char **argv)
{
    llmar_model *raw_model = nullptr;
    if (argc != 2 || llmar_model_open_path(argv[1], nullptr, &raw_model) != LLMAR_OK) {
        return fail("open");
    }
    std::unique_ptr<llmar_model, Free> model(raw_model);
    llmar_recognizer *raw_recognizer = nullptr;
    if (llmar_recognizer_create(model.get(), nullptr, &raw_recognizer) != LLMAR_OK) {
        return fail("create");
    }
    std::unique_ptr<llmar_recognizer, Free> recognizer(raw_recognizer);
    model.reset(); // the recognizer keeps it

    std::vector<float> joints(30 * 25 * 3);
    for (std::size_t i = 0; i < joints.size(); i++) {
        joints[i] = std::sin(0.37F * static_cast<float>(i));
    }
    llmar_clip clip{};
    clip.struct_size = sizeof clip;
    clip.joints = joints.data();
    clip.frames = 30;
    clip.persons = 1;
    clip.joint_count = 25;
    clip.coords = 3;
    clip.layout = "ntu25"; // mapped to the model's layout
    llmar_label_score top[3];
    llmar_recognition answer{};
    answer.struct_size = sizeof answer;
    answer.top = top;
    answer.top_capacity = 3;
    if (llmar_recognize_clip(recognizer.get(), &clip, nullptr, &answer) != LLMAR_OK) {
        return fail("recognize");
    }
    return answer.top_count == 3 && top[0].log_prob >= top[1].log_prob ? 0 : 1;
}
