/* What the C test programs share: checks that end the program, and a moving skeleton. SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llmar.h"

/* Ends the program unless the condition holds. */
#define CHECK(condition)                                                                                       \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                          \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

/* Ends the program unless the call returns exactly this status. A failing call must also leave a detail. */
#define EXPECT(expected, call) expect(__FILE__, __LINE__, #call, expected, call)

static inline void expect(const char *file, int line, const char *call, llmar_status expected, llmar_status got)
{
    char detail[512];
    size_t needed = llmar_last_error(detail, sizeof detail);
    if (got != expected) {
        fprintf(stderr, "%s:%d: %s\n  expected %d (%s), got %d (%s)\n  last error: %s\n", file, line, call, (int)expected,
                llmar_status_string(expected), (int)got, llmar_status_string(got), detail);
        exit(1);
    }
    if (expected != LLMAR_OK && (needed < 2 || strlen(detail) == 0)) {
        fprintf(stderr, "%s:%d: %s: no detail\n", file, line, call);
        exit(1);
    }
}

enum { JOINTS = 20, FRAMES = 40, COORDS = 3, VALUES = FRAMES * JOINTS * COORDS };

/* A kinect1_20 skeleton of one person whose joints swing; different seeds move differently. The values belong to the caller. */
static inline llmar_clip moving_clip(float values[VALUES], unsigned seed)
{
    for (int t = 0; t < FRAMES; t++) {
        for (int j = 0; j < JOINTS; j++) {
            float phase = 0.1f * (float)(t * (1 + (int)(seed % 7))) + 0.7f * (float)j;
            float *at = values + (t * JOINTS + j) * COORDS;
            at[0] = 0.05f * (float)(j % 5) + 0.2f * sinf(phase + (float)seed);
            at[1] = 1.8f - 0.09f * (float)j + 0.1f * cosf(1.3f * phase);
            at[2] = 2.5f + 0.15f * sinf(0.6f * phase);
        }
    }
    llmar_clip clip = {.struct_size = sizeof clip};
    clip.joints = values;
    clip.frames = FRAMES;
    clip.persons = 1;
    clip.joint_count = JOINTS;
    clip.coords = COORDS;
    clip.layout = "kinect1_20";
    clip.fps = 30.0f;
    return clip;
}

/* Room for one answer, and the answer in it. */
enum { TOP = 8, TOKENS = 64 };
typedef struct answer {
    llmar_label_score top[TOP];
    uint16_t tokens[TOKENS];
    llmar_recognition result;
} answer;

static inline void prepare(answer *a)
{
    memset(a, 0, sizeof *a);
    a->result.struct_size = sizeof a->result;
    a->result.top = a->top;
    a->result.top_capacity = TOP;
    a->result.tokens = a->tokens;
    a->result.token_capacity = TOKENS;
}

/* Whether two answers are the same, bit for bit, but for the time they took. */
static inline int same(const answer *a, const answer *b)
{
    return a->result.unknown == b->result.unknown && memcmp(&a->result.missing, &b->result.missing, sizeof(float)) == 0 &&
           a->result.top_count == b->result.top_count && memcmp(a->top, b->top, sizeof a->top) == 0 &&
           a->result.token_count == b->result.token_count && memcmp(a->tokens, b->tokens, sizeof a->tokens) == 0;
}

static inline llmar_model *open_model(const char *path)
{
    llmar_model *model = NULL;
    EXPECT(LLMAR_OK, llmar_model_open_path(path, NULL, &model));
    CHECK(model != NULL);
    return model;
}

static inline llmar_recognizer *make_recognizer(const llmar_model *model, uint32_t threads)
{
    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.threads = threads;
    llmar_recognizer *recognizer = NULL;
    EXPECT(LLMAR_OK, llmar_recognizer_create(model, &params, &recognizer));
    CHECK(recognizer != NULL);
    return recognizer;
}

#endif
