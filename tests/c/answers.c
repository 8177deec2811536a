/* What recognisers answer, and that it does not depend on how they are asked. Argument: MODEL. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

enum { CLIPS = 5, LABELS = 4 };

static llmar_model *model;
static float values[CLIPS][VALUES];
static llmar_clip clips[CLIPS];
static answer expected[CLIPS];

static void recognize_each(llmar_recognizer *recognizer, answer out[CLIPS])
{
    for (int i = 0; i < CLIPS; i++) {
        prepare(&out[i]);
        EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[i], NULL, &out[i].result));
    }
}

static void plausible(void)
{
    int different = 0;
    for (int i = 0; i < CLIPS; i++) {
        const llmar_recognition *r = &expected[i].result;
        CHECK(r->struct_size == sizeof *r && r->top == expected[i].top && r->tokens == expected[i].tokens);
        CHECK(r->top_count == LABELS && r->token_count == 8 && r->missing == 0 && r->unknown <= 1);
        CHECK(r->prompt_rows > 8 && r->label_rows > 0 && r->tokenize_ns > 0 && r->prompt_ns > 0);
        float sum = 0;
        unsigned seen = 0;
        for (size_t k = 0; k < r->top_count; k++) {
            const llmar_label_score *s = &expected[i].top[k];
            CHECK(s->label < LABELS && s->log_prob < 0 && s->probability >= 0 && s->probability <= 1);
            CHECK(k == 0 || s->log_prob <= s[-1].log_prob);
            seen |= 1u << s->label;
            sum += s->probability;
        }
        CHECK(seen == (1u << LABELS) - 1 && fabsf(sum - 1) < 1e-4f);
        for (size_t k = 0; k < r->token_count; k++) {
            CHECK(expected[i].tokens[k] < 32);
        }
        different += i > 0 && memcmp(expected[i].tokens, expected[0].tokens, sizeof expected[i].tokens) != 0;
    }
    CHECK(different > 0); /* the clips are told apart at all */
}

static void batches(llmar_recognizer *recognizer)
{
    answer answers[CLIPS];
    llmar_recognition results[CLIPS];
    for (int i = 0; i < CLIPS; i++) {
        prepare(&answers[i]);
        results[i] = answers[i].result;
    }
    EXPECT(LLMAR_OK, llmar_recognize_batch(recognizer, clips, CLIPS, NULL, results));
    for (int i = 0; i < CLIPS; i++) {
        answers[i].result = results[i];
        CHECK(same(&answers[i], &expected[i]));
    }
}

static void tokens_alone(llmar_recognizer *recognizer)
{
    for (int i = 0; i < CLIPS; i++) {
        uint16_t tokens[TOKENS] = {0};
        size_t count = 0;
        float missing = 1;
        EXPECT(LLMAR_OK, llmar_tokenize_clip(recognizer, &clips[i], NULL, tokens, TOKENS, &missing, &count));
        CHECK(count == expected[i].result.token_count && missing == 0);
        CHECK(memcmp(tokens, expected[i].tokens, sizeof tokens) == 0);
        EXPECT(LLMAR_OK, llmar_tokenize_clip(recognizer, &clips[i], NULL, tokens, count, NULL, &count));
    }
}

static void threads(void)
{
    for (uint32_t threads = 2; threads <= 4; threads += 2) {
        llmar_recognizer *recognizer = make_recognizer(model, threads);
        answer answers[CLIPS];
        recognize_each(recognizer, answers);
        for (int i = 0; i < CLIPS; i++) {
            CHECK(same(&answers[i], &expected[i]));
        }
        batches(recognizer);
        llmar_recognizer_free(recognizer);
    }
}

/* Only what was asked for is written. */
static void buffers(llmar_recognizer *recognizer)
{
    answer a;
    prepare(&a);
    memset(a.top, 0x33, sizeof a.top);
    a.result.top_capacity = 2;
    a.result.tokens = NULL;
    a.result.token_capacity = 0;
    llmar_label_score untouched = a.top[2];
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[1], NULL, &a.result));
    CHECK(a.result.top_count == 2 && a.result.token_count == 0);
    CHECK(memcmp(a.top, expected[1].top, 2 * sizeof *a.top) == 0 && memcmp(&a.top[2], &untouched, sizeof untouched) == 0);
    prepare(&a);
    a.result.top = NULL;
    a.result.top_capacity = 0;
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[1], NULL, &a.result));
    CHECK(a.result.top_count == 0 && a.result.token_count == 8);

    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.top_k = 1;
    llmar_recognizer *one = NULL;
    EXPECT(LLMAR_OK, llmar_recognizer_create(model, &params, &one));
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(one, &clips[1], NULL, &a.result));
    CHECK(a.result.top_count == 1 && a.top[0].label == expected[1].top[0].label && a.top[0].log_prob == expected[1].top[0].log_prob);
    llmar_recognizer_free(one);

    /* Greedily: one label, whose score is the exact one of this label. */
    params.decoding = LLMAR_DECODING_GREEDY;
    params.top_k = 3;
    EXPECT(LLMAR_OK, llmar_recognizer_create(model, &params, &one));
    for (int i = 0; i < CLIPS; i++) {
        prepare(&a);
        EXPECT(LLMAR_OK, llmar_recognize_clip(one, &clips[i], NULL, &a.result));
        CHECK(a.result.top_count == 1 && a.top[0].probability >= 0 && a.top[0].probability <= 1);
        CHECK(a.top[0].log_prob <= expected[i].top[0].log_prob);
        for (size_t j = 0; j < expected[i].result.top_count; j++) {
            CHECK(expected[i].top[j].label != a.top[0].label || expected[i].top[j].log_prob == a.top[0].log_prob);
        }
    }
    llmar_recognizer_free(one);
}

static void unknown(void)
{
    static const struct {
        float below;
        uint32_t unknown;
    } cases[] = {{0, 0}, {-1, 0}, {1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        llmar_recognizer_params params = {.struct_size = sizeof params};
        params.unknown_below = cases[i].below;
        llmar_recognizer *recognizer = NULL;
        EXPECT(LLMAR_OK, llmar_recognizer_create(model, &params, &recognizer));
        answer a;
        prepare(&a);
        EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &a.result));
        CHECK(a.result.unknown == cases[i].unknown && memcmp(a.top, expected[0].top, sizeof a.top) == 0);
        llmar_recognizer_free(recognizer);
    }
}

static void missing_joints(llmar_recognizer *recognizer)
{
    /* The same joints, once as NaN and infinity, once as flags: one in four. */
    float holes[VALUES];
    uint8_t valid[FRAMES * JOINTS];
    for (int i = 0; i < FRAMES * JOINTS; i++) {
        valid[i] = i % 4 != 1;
        for (int c = 0; c < COORDS; c++) {
            holes[i * COORDS + c] = valid[i] ? values[2][i * COORDS + c] : c == i % 3 ? NAN : c == 1 ? INFINITY : 1e30f;
        }
    }
    answer by_value, by_flag;
    llmar_clip clip = clips[2];
    clip.joints = holes;
    prepare(&by_value);
    llmar_status status = llmar_recognize_clip(recognizer, &clip, NULL, &by_value.result);
    EXPECT(LLMAR_OK, status);
    clip = clips[2];
    clip.valid = valid;
    prepare(&by_flag);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &by_flag.result));
    CHECK(same(&by_value, &by_flag));
    CHECK(fabsf(by_flag.result.missing - 0.25f) < 1e-3f);

    clip = clips[2];
    clip.frames = 1;
    prepare(&by_flag);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &by_flag.result));
    CHECK(by_flag.result.token_count == 8);
}

static void times_and_rates(llmar_recognizer *recognizer)
{
    uint64_t times[FRAMES];
    for (int t = 0; t < FRAMES; t++) {
        times[t] = UINT64_C(1700000000000000000) + UINT64_C(31250000) * (uint64_t)t; /* 32 frames a second, exact in binary */
    }
    llmar_clip clip = clips[3];
    answer stamped, rated;
    clip.fps = 32;
    prepare(&rated);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &rated.result));
    clip.fps = 0;
    clip.timestamps_ns = times;
    prepare(&stamped);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &stamped.result));
    CHECK(memcmp(stamped.tokens, rated.tokens, sizeof rated.tokens) == 0);
}

static void labels(llmar_recognizer *recognizer)
{
    const char *mine[] = {"jump", "sit down", "gr\xc3\xbc\xc3\x9f" "en"};
    answer a, again;
    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, mine, 3));
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &a.result));
    CHECK(a.result.top_count == 3 && a.result.prompt_rows > expected[0].result.prompt_rows);
    CHECK(a.top[0].label < 3 && a.top[1].label < 3 && a.top[2].label < 3);
    const char *bad[] = {"jump", ""};
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, bad, 2));
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &again.result));
    CHECK(same(&a, &again)); /* a refused list changes nothing */

    /* What each label gets on other clips is taken out: on a clip that was the measure itself nothing is left but equal shares. */
    answer balanced;
    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, mine, 2));
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &a.result));
    EXPECT(LLMAR_OK, llmar_recognizer_balance(recognizer, &clips[0], 1, NULL));
    prepare(&balanced);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &balanced.result));
    CHECK(balanced.result.top_count == 2 && !same(&a, &balanced));
    CHECK(fabsf(balanced.top[0].probability - 0.5f) < 1e-5f && fabsf(balanced.top[1].probability - 0.5f) < 1e-5f);
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_balance(recognizer, clips, 0, NULL)); /* no list is not an empty one */
    llmar_clip broken[2] = {clips[0], clips[1]};
    broken[1].frames = 0;
    EXPECT(LLMAR_ERROR_EMPTY_CLIP, llmar_recognizer_balance(recognizer, broken, 2, NULL)); /* and changes nothing */
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &again.result));
    CHECK(same(&balanced, &again));
    EXPECT(LLMAR_OK, llmar_recognizer_balance(recognizer, NULL, 0, NULL));
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &again.result));
    CHECK(same(&a, &again));
    EXPECT(LLMAR_OK, llmar_recognizer_balance(recognizer, clips, 2, NULL));
    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, NULL, 0));
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &again.result));
    CHECK(same(&again, &expected[0]));
}

static void limits_of_a_call(llmar_recognizer *recognizer)
{
    llmar_cancel *cancel = NULL;
    EXPECT(LLMAR_OK, llmar_cancel_create(&cancel));
    llmar_call_params call = {.struct_size = sizeof call};
    call.cancel = cancel;
    answer a;
    uint16_t tokens[TOKENS];
    size_t count = 0;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_cancel_request(cancel));
    EXPECT(LLMAR_ERROR_CANCELLED, llmar_recognize_clip(recognizer, &clips[0], &call, &a.result));
    EXPECT(LLMAR_ERROR_CANCELLED, llmar_tokenize_clip(recognizer, &clips[0], &call, tokens, TOKENS, NULL, &count));
    EXPECT(LLMAR_ERROR_CANCELLED, llmar_recognize_batch(recognizer, clips, 1, &call, &a.result));
    CHECK(a.result.top_count == 0 && count == 0);
    EXPECT(LLMAR_OK, llmar_cancel_clear(cancel));
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], &call, &a.result));
    CHECK(same(&a, &expected[0]));
    call.cancel = NULL;
    call.deadline_ns = 1; /* over before anything is done */
    EXPECT(LLMAR_ERROR_DEADLINE_EXCEEDED, llmar_recognize_clip(recognizer, &clips[0], &call, &a.result));
    EXPECT(LLMAR_ERROR_DEADLINE_EXCEEDED, llmar_tokenize_clip(recognizer, &clips[0], &call, tokens, TOKENS, NULL, &count));
    call.deadline_ns = UINT64_MAX;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], &call, &a.result));
    CHECK(same(&a, &expected[0]));
    llmar_cancel_free(cancel);
}

static void layouts(llmar_recognizer *recognizer)
{
    size_t count = 0, joints = 0;
    const char *name = NULL;
    EXPECT(LLMAR_OK, llmar_layout_count(&count));
    CHECK(count >= 3);
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_layout_name(count, &name));
    EXPECT(LLMAR_ERROR_UNKNOWN_LAYOUT, llmar_layout_joint_count("mine", &joints));
    EXPECT(LLMAR_OK, llmar_layout_joint_count("kinect1_20", &joints));
    CHECK(joints == JOINTS);
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_layout_joint_name("kinect1_20", JOINTS, &name));

    /* With fewer joints, in the same order. */
    EXPECT(LLMAR_OK, llmar_layout_joint_count("kinect1_20 without spine, FootLeft", &joints));
    CHECK(joints == JOINTS - 2);
    EXPECT(LLMAR_OK, llmar_layout_joint_name("kinect1_20 without spine, FootLeft", 1, &name));
    CHECK(strcmp(name, "shoulder_center") == 0);
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_layout_joint_count("kinect1_20 without tail", &joints));
    EXPECT(LLMAR_ERROR_UNKNOWN_LAYOUT, llmar_layout_joint_count("mine without spine", &joints));

    /* The model's layout backwards under other spellings: the same clip, joint by joint, gives the same answer. */
    char spelled[JOINTS][64];
    const char *names[JOINTS];
    for (size_t j = 0; j < JOINTS; j++) {
        EXPECT(LLMAR_OK, llmar_layout_joint_name("kinect1_20", JOINTS - 1 - j, &name));
        CHECK(strlen(name) > 0 && strlen(name) < 64);
        strcpy(spelled[j], name);
        for (char *c = spelled[j]; *c; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        names[j] = spelled[j];
    }
    EXPECT(LLMAR_OK, llmar_layout_register("mine", names, JOINTS));
    EXPECT(LLMAR_OK, llmar_layout_register("mine", names, JOINTS));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_layout_register("mine", names, JOINTS - 1));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_layout_register("kinect1_20", names, JOINTS));
    size_t more = 0;
    EXPECT(LLMAR_OK, llmar_layout_count(&more));
    CHECK(more == count + 1);
    EXPECT(LLMAR_OK, llmar_layout_name(count, &name));
    CHECK(strcmp(name, "mine") == 0);
    const char *same_name = NULL;
    EXPECT(LLMAR_OK, llmar_layout_name(count, &same_name));
    CHECK(same_name == name);
    EXPECT(LLMAR_OK, llmar_layout_joint_name("mine", 0, &name));
    CHECK(strcmp(name, names[0]) == 0);

    float backwards[VALUES];
    for (int i = 0; i < FRAMES * JOINTS; i++) {
        int from = i / JOINTS * JOINTS + (JOINTS - 1 - i % JOINTS);
        memcpy(backwards + i * COORDS, values[4] + from * COORDS, COORDS * sizeof(float));
    }
    llmar_clip clip = clips[4];
    clip.layout = "mine";
    clip.joints = backwards;
    answer a;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    CHECK(same(&a, &expected[4]));

    /* A clip without the spine is answered as one whose spine (joint 1) is never seen, but that nothing of it is missing. */
    enum { FEWER = JOINTS - 1 };
    float fewer[FRAMES * FEWER * COORDS];
    uint8_t seen[FRAMES * JOINTS];
    for (int i = 0; i < FRAMES * JOINTS; i++) {
        int joint = i % JOINTS;
        seen[i] = joint != 1;
        if (joint != 1) {
            memcpy(fewer + (i / JOINTS * FEWER + joint - (joint > 1)) * COORDS, values[4] + i * COORDS, COORDS * sizeof(float));
        }
    }
    answer unseen;
    prepare(&unseen);
    clip = clips[4];
    clip.valid = seen;
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &unseen.result));
    CHECK(unseen.result.missing > 0.04f && unseen.result.missing < 0.06f);
    clip = clips[4];
    clip.layout = "kinect1_20 without spine";
    clip.joint_count = FEWER;
    clip.joints = fewer;
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
    CHECK(a.result.missing == 0.0f);
    unseen.result.missing = 0.0f;
    CHECK(same(&a, &unseen));
}

/* Log messages: levels, calls from inside, and silence afterwards. */
static unsigned messages[5];

static void on_message(void *user, llmar_log_level level, const char *message)
{
    CHECK(user == messages && level >= LLMAR_LOG_ERROR && level <= LLMAR_LOG_DEBUG && strlen(message) > 0);
    CHECK(strchr(message, '\n') == NULL);
    messages[level]++;
    size_t count = 0;
    llmar_layout_count(&count); /* calls from inside are allowed */
    CHECK(llmar_layout_joint_count("no such", &count) == LLMAR_ERROR_UNKNOWN_LAYOUT);
    CHECK(llmar_set_log(NULL, NULL, 0) == LLMAR_ERROR_IN_USE);
}

static void logging(const char *path)
{
    llmar_model *none = NULL;
    EXPECT(LLMAR_OK, llmar_set_log(on_message, messages, 0));
    llmar_model_free(open_model(path));
    CHECK(messages[LLMAR_LOG_INFO] == 1 && messages[LLMAR_LOG_DEBUG] == 0);
    EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("/no\nwhere", NULL, &none));
    CHECK(messages[LLMAR_LOG_DEBUG] == 0);
    EXPECT(LLMAR_OK, llmar_set_log(on_message, messages, LLMAR_LOG_DEBUG));
    EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("/no\nwhere", NULL, &none));
    CHECK(messages[LLMAR_LOG_DEBUG] == 1);
    char detail[256];
    llmar_last_error(detail, sizeof detail);
    CHECK(strstr(detail, "llmar_model_open_path") == detail); /* not that of the call inside the sink */
    EXPECT(LLMAR_OK, llmar_set_log(NULL, NULL, 0));
    EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("/nowhere", NULL, &none));
    CHECK(messages[LLMAR_LOG_DEBUG] == 1 && messages[LLMAR_LOG_ERROR] == 0);
}

/* What a caller does not have to set may hold anything. */
static void unset_fields(llmar_recognizer *recognizer)
{
    answer a;
    memset(&a, 0xaa, sizeof a);
    a.result.struct_size = sizeof a.result;
    a.result.top = a.top;
    a.result.top_capacity = TOP;
    a.result.tokens = a.tokens;
    a.result.token_capacity = TOKENS;
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &a.result));
    CHECK(a.result.reserved == 0 && a.result.top_count == expected[0].result.top_count);
    CHECK(a.top[0].label == expected[0].top[0].label && a.top[0].log_prob == expected[0].top[0].log_prob);
}

/* A recogniser is the last user of its model: label texts live as long as it does. Frees both. */
static void last_user(llmar_recognizer *recognizer)
{
    const char *text = NULL;
    EXPECT(LLMAR_OK, llmar_model_label(model, 0, &text));
    llmar_model_free(model);
    answer a;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clips[0], NULL, &a.result));
    CHECK(same(&a, &expected[0]) && strcmp(text, "walk") == 0);
    llmar_recognizer_free(recognizer);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    model = open_model(argv[1]);
    for (unsigned i = 0; i < CLIPS; i++) {
        clips[i] = moving_clip(values[i], 3 * i + 1);
    }
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    recognize_each(recognizer, expected);
    plausible();
    batches(recognizer);
    tokens_alone(recognizer);
    threads();
    buffers(recognizer);
    unset_fields(recognizer);
    unknown();
    missing_joints(recognizer);
    times_and_rates(recognizer);
    labels(recognizer);
    limits_of_a_call(recognizer);
    layouts(recognizer);
    logging(argv[1]);
    last_user(recognizer);
    return 0;
}
