/* Where a model runs. Arguments: MODEL DEVICE STATUS [CLIPS]: opening it there gives that status; when that is 0, clips are recognised as on the CPU,
 * or end with the status CLIPS. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

static int warnings;

static void count_warnings(void *user, llmar_log_level level, const char *message)
{
    (void)user;
    warnings += level == LLMAR_LOG_WARN && strstr(message, "runs on the CPU") != NULL;
}

static llmar_status first_answer(llmar_model *model, answer *a)
{
    static float values[VALUES];
    llmar_clip clip = moving_clip(values, 3);
    llmar_recognizer *recognizer = NULL;
    llmar_status status = llmar_recognizer_create(model, NULL, &recognizer);
    for (int i = 0; status == LLMAR_OK && i < 3; i++) {
        prepare(a);
        status = llmar_recognize_clip(recognizer, &clip, NULL, &a->result);
    }
    llmar_recognizer_free(recognizer);
    return status;
}

int main(int argc, char **argv)
{
    CHECK(argc == 4 || argc == 5);
    const char *path = argv[1], *device = argv[2];
    const llmar_status status = atoi(argv[3]), clips = argc == 5 ? atoi(argv[4]) : LLMAR_OK;
    EXPECT(LLMAR_OK, llmar_set_log(count_warnings, NULL, LLMAR_LOG_WARN));

    llmar_model *here = NULL, *there = NULL;
    llmar_model_params params = {.struct_size = sizeof params};
    EXPECT(LLMAR_OK, llmar_model_open_path(path, &params, &here));
    params.device = "cuda:-1";
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_model_open_path(path, &params, &there));
    params.device = device;
    EXPECT(status, llmar_model_open_path(path, &params, &there));
    if (status == LLMAR_OK) {
        llmar_model_info info = {.struct_size = sizeof info};
        EXPECT(LLMAR_OK, llmar_model_get_info(there, &info));
        const int on_cpu = strcmp(info.device, "cpu") == 0;
        CHECK(on_cpu || strncmp(info.device, "cuda:", 5) == 0);
        CHECK(warnings == (strcmp(device, "auto") == 0 && on_cpu));
        answer want, got;
        EXPECT(LLMAR_OK, first_answer(here, &want));
        EXPECT(clips, first_answer(there, &got));
        if (clips == LLMAR_OK) {
            CHECK(got.result.top_count == want.result.top_count && got.result.token_count == want.result.token_count);
            CHECK(memcmp(got.tokens, want.tokens, sizeof got.tokens) == 0);
            CHECK(fabsf(got.top[0].log_prob - want.top[0].log_prob) < 0.05f);
        }
    } else {
        CHECK(there == NULL);
    }
    /* What is left of a failed GPU can be freed, and the CPU still works. */
    llmar_model_free(there);
    answer again;
    EXPECT(LLMAR_OK, first_answer(here, &again));
    llmar_model_free(here);

    /* A budget that is too small for the model, or for its recognizers. */
    params.memory_budget = 100000;
    there = NULL;
    llmar_status small = llmar_model_open_path(path, &params, &there);
    if (small == LLMAR_OK) {
        answer none;
        small = first_answer(there, &none);
    }
    CHECK(small == LLMAR_ERROR_MEMORY_BUDGET || status != LLMAR_OK || clips != LLMAR_OK);
    llmar_model_free(there);
    return 0;
}
