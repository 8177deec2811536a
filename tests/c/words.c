/* Labels told by the words of their texts, from C: words.c DESCRIBED PLAIN, two checkpoints of which only the first has a reading of words.
 * SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "support.h"

#include <stddef.h>

static llmar_recognizer *by_words(const llmar_model *model)
{
    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.scoring = LLMAR_SCORING_WORDS;
    llmar_recognizer *recognizer = NULL;
    EXPECT(LLMAR_OK, llmar_recognizer_create(model, &params, &recognizer));
    return recognizer;
}

/* Probabilities of all labels fall and add up to 1, and log_prob is their logarithm; the language model was not run. */
static void check_answer(const answer *a, size_t labels)
{
    CHECK(a->result.top_count == labels && a->result.token_count == 8);
    CHECK(a->result.prompt_rows == 0 && a->result.label_rows == 0 && a->result.prompt_ns == 0);
    double sum = 0;
    for (size_t i = 0; i < labels; i++) {
        CHECK(a->top[i].label < labels && fabs(exp(a->top[i].log_prob) - a->top[i].probability) < 1e-6);
        CHECK(i == 0 || a->top[i].probability <= a->top[i - 1].probability);
        sum += a->top[i].probability;
    }
    CHECK(fabs(sum - 1) < 1e-5);
}

static void answers(const llmar_model *model)
{
    static float values[VALUES];
    const llmar_clip clip = moving_clip(values, 3);
    llmar_recognizer *recognizer = by_words(model);
    answer own, again;
    prepare(&own);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &own.result));
    check_answer(&own, 4);
    CHECK(own.result.unknown == 0);

    /* The same labels in another order, spelled otherwise, with words that no label of training had: the same answers. */
    const char *labels[] = {"HANDS, down (right)", "both hands up", "left down, then stop", "right up"};
    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, labels, 4));
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_batch(recognizer, &clip, 1, NULL, &again.result));
    check_answer(&again, 4);
    for (size_t i = 0; i < 4; i++) {
        CHECK(again.top[i].label == 3 - own.top[i].label && again.top[i].probability == own.top[i].probability);
    }

    /* What nothing could tell is refused, and the labels stay. */
    const char *unheard_of[] = {"right up", "jump rope"}, *alike[] = {"right up", "up, right, slowly"}, *empty[] = {""};
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, unheard_of, 2));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, alike, 2));
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_set_labels(recognizer, empty, 1));
    answer still;
    prepare(&still);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &still.result));
    CHECK(memcmp(still.top, again.top, sizeof still.top) == 0);

    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, NULL, 0));
    prepare(&again);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &again.result));
    CHECK(memcmp(again.top, own.top, sizeof own.top) == 0);
    llmar_recognizer_free(recognizer);
}

static void settings(const llmar_model *described, const llmar_model *plain)
{
    llmar_recognizer *none = NULL;
    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.scoring = LLMAR_SCORING_WORDS;
    EXPECT(LLMAR_ERROR_UNSUPPORTED, llmar_recognizer_create(plain, &params, &none));
    params.decoding = LLMAR_DECODING_GREEDY;
    EXPECT(LLMAR_ERROR_INVALID_ARGUMENT, llmar_recognizer_create(described, &params, &none));
    params.decoding = LLMAR_DECODING_EXACT;
    params.scoring = LLMAR_SCORING_WORDS + 1;
    EXPECT(LLMAR_ERROR_INVALID_ENUM, llmar_recognizer_create(described, &params, &none));
    CHECK(none == NULL);

    /* A caller from before there was a choice has the language model, and what stands behind its struct is not looked at. */
    params.scoring = LLMAR_SCORING_WORDS;
    params.struct_size = (uint32_t)offsetof(llmar_recognizer_params, scoring);
    llmar_recognizer *older = NULL;
    EXPECT(LLMAR_OK, llmar_recognizer_create(described, &params, &older));
    static float values[VALUES];
    const llmar_clip clip = moving_clip(values, 3);
    answer a;
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(older, &clip, NULL, &a.result));
    CHECK(a.result.prompt_rows > 0);
    llmar_recognizer_free(older);

    /* Everything can be called unknown. */
    params.struct_size = sizeof params;
    params.unknown_below = 1;
    EXPECT(LLMAR_OK, llmar_recognizer_create(described, &params, &older));
    prepare(&a);
    EXPECT(LLMAR_OK, llmar_recognize_clip(older, &clip, NULL, &a.result));
    CHECK(a.result.unknown == 1);
    llmar_recognizer_free(older);
}

int main(int argc, char **argv)
{
    CHECK(argc == 3);
    llmar_model *described = open_model(argv[1]), *plain = open_model(argv[2]);
    answers(described);
    settings(described, plain);
    llmar_model_free(described);
    llmar_model_free(plain);
    return 0;
}
