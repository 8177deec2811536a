/* Every wrong argument: a status, a detail, no output, and the handle goes on. Argument: MODEL. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

static llmar_model *model;
static llmar_recognizer *recognizer;
static float values[VALUES];
static answer a;

/* What a good call answers after a bad one. */
static void still_works(void)
{
    static answer first;
    static int have_first;
    float own[VALUES];
    llmar_clip clip = moving_clip(own, 3);
    answer again;
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &again.result));
    if (!have_first) {
        first = again;
        have_first = 1;
    }
    CHECK(same(&first, &again));
}

/* Recognises a clip that is wrong: nothing is written. */
static void refuse(llmar_status expected, const llmar_clip *clip)
{
    answer before;
    prepare(&a);
    memset(a.top, 0x33, sizeof a.top);
    memset(a.tokens, 0x44, sizeof a.tokens);
    memcpy(&before, &a, sizeof a);
    EXPECT(expected, llmar_recognize_clip(recognizer, clip, NULL, &a.result));
    EXPECT(expected, llmar_recognize_batch(recognizer, clip, 1, NULL, &a.result));
    CHECK(memcmp(&before, &a, sizeof a) == 0);
    uint16_t tokens[TOKENS] = {7};
    size_t count = 77;
    float missing = 7.0f;
    EXPECT(expected, llmar_tokenize_clip(recognizer, clip, NULL, tokens, TOKENS, &missing, &count));
    CHECK(tokens[0] == 7 && count == 77 && missing == 7.0f);
}

static void null_pointers(void)
{
    const llmar_status null = LLMAR_ERROR_NULL_POINTER;
    llmar_model *no_model = NULL;
    llmar_recognizer *no_recognizer = NULL;
    llmar_cancel *cancel = NULL;
    llmar_model_info info = {.struct_size = sizeof info};
    llmar_reader reader = {.struct_size = sizeof reader};
    const char *text = NULL, *texts[] = {"a", NULL};
    size_t count = 0;
    uint16_t tokens[TOKENS];
    float missing;
    llmar_clip clip = moving_clip(values, 1);

    EXPECT(null, llmar_model_open_path(NULL, NULL, &no_model));
    EXPECT(null, llmar_model_open_path("x", NULL, NULL));
    EXPECT(null, llmar_model_open_memory(NULL, 100, NULL, &no_model));
    EXPECT(null, llmar_model_open_memory(NULL, 0, NULL, &no_model));
    EXPECT(null, llmar_model_open_memory(values, 100, NULL, NULL));
    EXPECT(null, llmar_model_open_reader(NULL, NULL, &no_model));
    EXPECT(null, llmar_model_open_reader(&reader, NULL, &no_model)); /* without a read function */
    EXPECT(null, llmar_model_open_reader(&reader, NULL, NULL));
    EXPECT(null, llmar_model_verify_path(NULL, NULL));
    EXPECT(null, llmar_model_get_info(NULL, &info));
    EXPECT(null, llmar_model_get_info(model, NULL));
    EXPECT(null, llmar_model_label_count(NULL, &count));
    EXPECT(null, llmar_model_label_count(model, NULL));
    EXPECT(null, llmar_model_label(NULL, 0, &text));
    EXPECT(null, llmar_model_label(model, 0, NULL));
    EXPECT(null, llmar_model_retain(NULL));
    EXPECT(null, llmar_recognizer_create(NULL, NULL, &no_recognizer));
    EXPECT(null, llmar_recognizer_create(model, NULL, NULL));
    EXPECT(null, llmar_recognizer_set_labels(NULL, texts, 1));
    EXPECT(null, llmar_recognizer_set_labels(recognizer, NULL, 1));
    EXPECT(null, llmar_recognizer_set_labels(recognizer, texts, 2));
    EXPECT(null, llmar_recognizer_balance(NULL, NULL, 0, NULL));
    EXPECT(null, llmar_recognizer_balance(recognizer, NULL, 1, NULL));
    EXPECT(null, llmar_cancel_create(NULL));
    EXPECT(null, llmar_cancel_request(NULL));
    EXPECT(null, llmar_cancel_clear(NULL));
    EXPECT(null, llmar_layout_count(NULL));
    EXPECT(null, llmar_layout_name(0, NULL));
    EXPECT(null, llmar_layout_joint_count(NULL, &count));
    EXPECT(null, llmar_layout_joint_count("ntu25", NULL));
    EXPECT(null, llmar_layout_joint_name(NULL, 0, &text));
    EXPECT(null, llmar_layout_joint_name("ntu25", 0, NULL));
    EXPECT(null, llmar_layout_register(NULL, texts, 1));
    EXPECT(null, llmar_layout_register("mine", NULL, 1));
    EXPECT(null, llmar_layout_register("mine", NULL, 0));
    EXPECT(null, llmar_layout_register("mine", texts, 2));

    prepare(&a);
    EXPECT(null, llmar_recognize_clip(NULL, &clip, NULL, &a.result));
    EXPECT(null, llmar_recognize_clip(recognizer, NULL, NULL, &a.result));
    EXPECT(null, llmar_recognize_clip(recognizer, &clip, NULL, NULL));
    EXPECT(null, llmar_recognize_batch(NULL, &clip, 1, NULL, &a.result));
    EXPECT(null, llmar_recognize_batch(recognizer, NULL, 1, NULL, &a.result));
    EXPECT(null, llmar_recognize_batch(recognizer, &clip, 1, NULL, NULL));
    EXPECT(LLMAR_OK, llmar_recognize_batch(recognizer, NULL, 0, NULL, NULL));
    EXPECT(null, llmar_tokenize_clip(NULL, &clip, NULL, tokens, TOKENS, &missing, &count));
    EXPECT(null, llmar_tokenize_clip(recognizer, NULL, NULL, tokens, TOKENS, &missing, &count));
    EXPECT(null, llmar_tokenize_clip(recognizer, &clip, NULL, NULL, TOKENS, &missing, &count));
    EXPECT(null, llmar_tokenize_clip(recognizer, &clip, NULL, tokens, TOKENS, &missing, NULL));
    EXPECT(LLMAR_OK, llmar_tokenize_clip(recognizer, &clip, NULL, tokens, TOKENS, NULL, &count));

    llmar_clip bad = clip;
    bad.joints = NULL;
    refuse(null, &bad);
    bad = clip;
    bad.layout = NULL;
    refuse(null, &bad);
    a.result.top = NULL;
    EXPECT(null, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    prepare(&a);
    a.result.tokens = NULL;
    EXPECT(null, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));

    CHECK(no_model == NULL && no_recognizer == NULL && cancel == NULL && text == NULL);
    llmar_model_free(NULL);
    llmar_recognizer_free(NULL);
    llmar_cancel_free(NULL);
    EXPECT(LLMAR_OK, llmar_set_log(NULL, NULL, 0));
    CHECK(llmar_last_error(NULL, 0) > 1);
    still_works();
}

static void struct_sizes(void)
{
    const llmar_status wrong = LLMAR_ERROR_STRUCT_SIZE;
    static const uint32_t sizes[] = {0, 1, 4, 7, 4097, UINT32_MAX};
    llmar_model *no_model = NULL;
    llmar_recognizer *no_recognizer = NULL;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        llmar_model_params model_params = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_model_open_path("x", &model_params, &no_model));
        llmar_reader reader = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_model_open_reader(&reader, NULL, &no_model));
        llmar_model_info info = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_model_get_info(model, &info));
        llmar_recognizer_params params = {.struct_size = sizes[i]};
        EXPECT(wrong, llmar_recognizer_create(model, &params, &no_recognizer));
        llmar_clip clip = moving_clip(values, 1);
        llmar_call_params call = {.struct_size = sizes[i]};
        prepare(&a);
        EXPECT(wrong, llmar_recognize_clip(recognizer, &clip, &call, &a.result));
        a.result.struct_size = sizes[i];
        EXPECT(wrong, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
        clip.struct_size = sizes[i];
        refuse(wrong, &clip);
    }
    CHECK(no_model == NULL && no_recognizer == NULL);

    /* A program that is newer than the library: fine as long as it does not use what the library lacks. */
    struct {
        llmar_clip clip;
        uint64_t later;
    } newer = {.later = 0};
    newer.clip = moving_clip(values, 1);
    newer.clip.struct_size = sizeof newer;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &newer.clip, NULL, &a.result));
    newer.later = 1;
    refuse(LLMAR_ERROR_UNSUPPORTED, &newer.clip);
    struct {
        llmar_model_info info;
        uint64_t later;
    } info = {.later = 5};
    info.info.struct_size = sizeof info;
    EXPECT(LLMAR_OK, llmar_model_get_info(model, &info.info));
    CHECK(info.info.layers == 2 && info.later == 0);

    /* Mixed sizes in an array have no common distance. */
    llmar_clip pair[] = {moving_clip(values, 1), moving_clip(values, 1)};
    pair[1].struct_size = sizeof newer;
    answer both[2];
    prepare(&both[0]);
    llmar_recognition results[2] = {both[0].result, both[0].result};
    EXPECT(wrong, llmar_recognize_batch(recognizer, pair, 2, NULL, results));

    llmar_clip clip = moving_clip(values, 1);
    clip.reserved = 1;
    refuse(LLMAR_ERROR_UNSUPPORTED, &clip);
    still_works();
}

static void texts_and_constants(void)
{
    static const char latin1[] = "k\xf6rper", cut[] = "abc\xe2\x82";
    const char *labels[] = {"wave", latin1}, *joints[] = {"head", cut};
    llmar_model *no_model = NULL;
    size_t count = 0;
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_model_open_path(latin1, NULL, &no_model));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_model_verify_path(cut, NULL));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_recognizer_set_labels(recognizer, labels, 2));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_layout_register(latin1, joints, 1));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_layout_register("mine", joints, 2));
    EXPECT(LLMAR_ERROR_INVALID_UTF8, llmar_layout_joint_count(cut, &count));
    llmar_clip clip = moving_clip(values, 1);
    clip.layout = latin1;
    refuse(LLMAR_ERROR_INVALID_UTF8, &clip);

    llmar_model_params params = {.struct_size = sizeof params};
    static const uint32_t flags[] = {4, 0x80000000u, LLMAR_MODEL_BORROW};
    for (size_t i = 0; i < 3; i++) {
        params.flags = flags[i];
        EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_model_open_path("x", &params, &no_model));
        EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_model_verify_path("x", &params));
    }
    EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_set_log(NULL, NULL, 5));
    EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_set_log(NULL, NULL, UINT32_MAX));
    CHECK(no_model == NULL);
    still_works();
}

static void numbers(void)
{
    llmar_recognizer *none = NULL;
    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.threads = 257;
    EXPECT(LLMAR_ERROR_LIMIT, llmar_recognizer_create(model, &params, &none));
    params.threads = 1;
    static const float thresholds[] = {1.5f, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        params.unknown_below = thresholds[i];
        EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_create(model, &params, &none));
    }
    params.unknown_below = 0;
    params.decoding = 2;
    EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_recognizer_create(model, &params, &none));
    params.decoding = LLMAR_DECODING_EXACT;
    params.scoring = 2;
    EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_recognizer_create(model, &params, &none));
    params.scoring = LLMAR_SCORING_WORDS; /* this checkpoint has no reading */
    EXPECT(LLMAR_ERROR_UNSUPPORTED, llmar_recognizer_create(model, &params, &none));
    CHECK(none == NULL);

    const char *empty[] = {""}, *twice[] = {"wave", "wave"};
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, empty, 1));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, twice, 2));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, twice, 0));
    EXPECT(LLMAR_ERROR_LIMIT, llmar_recognizer_set_labels(recognizer, twice, SIZE_MAX));
    EXPECT(LLMAR_ERROR_LIMIT, llmar_layout_register("mine", twice, SIZE_MAX / 8));

    uint16_t tokens[TOKENS];
    size_t count = 9;
    llmar_clip clip = moving_clip(values, 1);
    EXPECT(LLMAR_ERROR_BUFFER_TOO_SMALL, llmar_tokenize_clip(recognizer, &clip, NULL, tokens, 7, NULL, &count));
    prepare(&a);
    a.result.token_capacity = 7;
    EXPECT(LLMAR_ERROR_BUFFER_TOO_SMALL, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    CHECK(count == 9 && a.result.top_count == 0);
    still_works();
}

static void clips(void)
{
    const llmar_clip good = moving_clip(values, 1);
    llmar_clip clip = good;
    clip.frames = 0;
    refuse(LLMAR_ERROR_EMPTY_CLIP, &clip);
    clip = good;
    clip.frames = 65537; /* refused before the memory is read */
    refuse(LLMAR_ERROR_LIMIT, &clip);
    clip.frames = SIZE_MAX / 2;
    refuse(LLMAR_ERROR_LIMIT, &clip);
    clip.frames = SIZE_MAX / (JOINTS * COORDS * 4);
    refuse(LLMAR_ERROR_LIMIT, &clip);
    clip = good;
    clip.persons = 0;
    refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);
    clip.persons = 17;
    refuse(LLMAR_ERROR_LIMIT, &clip);
    clip = good;
    clip.joint_count = JOINTS - 1; /* another count than the layout's */
    refuse(LLMAR_ERROR_SHAPE, &clip);
    clip.joint_count = 0;
    refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);
    static const uint32_t coords[] = {0, 1, 4, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        clip = good;
        clip.coords = coords[i];
        clip.frames = 1;
        refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);
    }
    clip = good;
    clip.layout = "no_such_layout";
    refuse(LLMAR_ERROR_UNKNOWN_LAYOUT, &clip);
    clip.layout = "";
    refuse(LLMAR_ERROR_UNKNOWN_LAYOUT, &clip);
    static const float rates[] = {-1.0f, NAN, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        clip = good;
        clip.fps = rates[i];
        refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);
    }

    uint64_t times[FRAMES];
    for (int t = 0; t < FRAMES; t++) {
        times[t] = 33333333u * (uint64_t)t;
    }
    clip = good;
    clip.timestamps_ns = times;
    refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip); /* and a rate beside them */
    clip.fps = 0;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    times[9] = times[8];
    refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);

    /* Addresses that no such array can have. */
    clip = good;
    clip.joints = (const float *)(const void *)((const char *)values + 1);
    refuse(LLMAR_ERROR_INVALID_ARGUMENT, &clip);

    uint8_t valid[FRAMES * JOINTS];
    memset(valid, 0, sizeof valid);
    clip = good;
    clip.valid = valid;
    refuse(LLMAR_ERROR_EMPTY_CLIP, &clip);
    float none[VALUES];
    for (int i = 0; i < VALUES; i++) {
        none[i] = i % 2 ? NAN : -INFINITY;
    }
    clip = good;
    clip.joints = none;
    refuse(LLMAR_ERROR_EMPTY_CLIP, &clip);
    still_works();

    /* One bad clip among good ones: all or nothing, and its number is told. */
    llmar_clip three[] = {good, good, good};
    three[1].frames = 0;
    answer answers[3];
    llmar_recognition results[3];
    for (int i = 0; i < 3; i++) {
        prepare(&answers[i]);
        results[i] = answers[i].result;
    }
    EXPECT(LLMAR_ERROR_EMPTY_CLIP, llmar_recognize_batch(recognizer, three, 3, NULL, results));
    char detail[256];
    CHECK(llmar_last_error(detail, sizeof detail) > 0 && strstr(detail, "1") != NULL && strstr(detail, "llmar_recognize_batch") != NULL);
    CHECK(results[0].top_count == 0 && results[2].top_count == 0);
    still_works();
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    CHECK(llmar_last_error(NULL, 0) == 0);
    model = open_model(argv[1]);
    recognizer = make_recognizer(model, 1);
    still_works();
    null_pointers();
    struct_sizes();
    texts_and_constants();
    numbers();
    clips();
    llmar_recognizer_free(recognizer);
    llmar_model_free(model);
    return 0;
}
