/* Several threads: cancelling, sharing a model, and a recogniser used by two at once. Argument: MODEL. SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include "support.h"

enum { BATCH = 16, SHARERS = 4 };

static llmar_model *model;
static float values[VALUES];
static answer expected;
static atomic_int started, stop;

static void *cancel_soon(void *cancel)
{
    while (!atomic_load(&started)) {
        sched_yield();
    }
    struct timespec moment = {0, 2000000};
    nanosleep(&moment, NULL);
    EXPECT(LLMAR_OK, llmar_cancel_request(cancel));
    return NULL;
}

static llmar_status batch(llmar_recognizer *recognizer, const llmar_call_params *call)
{
    llmar_clip clips[BATCH];
    llmar_recognition results[BATCH];
    for (int i = 0; i < BATCH; i++) {
        clips[i] = moving_clip(values, 1);
        results[i] = (llmar_recognition){.struct_size = sizeof results[i]};
    }
    llmar_status status = llmar_recognize_batch(recognizer, clips, BATCH, call, results);
    for (int i = 0; i < BATCH && status != LLMAR_OK; i++) {
        CHECK(results[i].prompt_rows == 0); /* nothing half written */
    }
    return status;
}

/* Calls go on until another thread raises the token; the recogniser works afterwards. */
static void cancelled_from_outside(void)
{
    llmar_recognizer *recognizer = make_recognizer(model, 2);
    llmar_cancel *cancel = NULL;
    EXPECT(LLMAR_OK, llmar_cancel_create(&cancel));
    llmar_call_params call = {.struct_size = sizeof call};
    call.cancel = cancel;
    pthread_t other;
    CHECK(pthread_create(&other, NULL, cancel_soon, cancel) == 0);
    llmar_status status;
    do {
        atomic_store(&started, 1);
        status = batch(recognizer, &call);
        CHECK(status == LLMAR_OK || status == LLMAR_ERROR_CANCELLED);
    } while (status == LLMAR_OK);
    CHECK(pthread_join(other, NULL) == 0);
    EXPECT(LLMAR_ERROR_CANCELLED, batch(recognizer, &call));
    EXPECT(LLMAR_OK, llmar_cancel_clear(cancel));
    EXPECT(LLMAR_OK, batch(recognizer, &call));
    llmar_cancel_free(cancel);
    llmar_recognizer_free(recognizer);
}

static void *run_batches(void *recognizer)
{
    while (!atomic_load(&stop)) {
        llmar_status status = batch(recognizer, NULL);
        CHECK(status == LLMAR_OK || status == LLMAR_ERROR_IN_USE);
    }
    return NULL;
}

/* Against the rule, but not a crash: the second of two calls is refused. */
static void used_by_two(void)
{
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, run_batches, recognizer) == 0);
    struct timespec moment = {0, 1000000};
    llmar_status status;
    do {
        status = llmar_recognizer_set_labels(recognizer, NULL, 0);
        CHECK(status == LLMAR_OK || status == LLMAR_ERROR_IN_USE);
        nanosleep(&moment, NULL); /* not sched_yield: the two would take turns for ever on one core */
    } while (status != LLMAR_ERROR_IN_USE);
    atomic_store(&stop, 1);
    CHECK(pthread_join(other, NULL) == 0);
    EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, NULL, 0));
    llmar_recognizer_free(recognizer);
}

static void *share(void *unused)
{
    (void)unused;
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    const char *labels[] = {"jump", "wave"};
    for (int round = 0; round < 2; round++) {
        llmar_clip clip = moving_clip((float[VALUES]){0}, 1);
        answer a;
        prepare(&a);
        EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, labels, 2)); /* builds the shared tokenizer */
        EXPECT(LLMAR_OK, llmar_recognizer_set_labels(recognizer, NULL, 0));
        EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &a.result));
        CHECK(same(&a, &expected));
        llmar_model_info info = {.struct_size = sizeof info};
        const char *text = NULL;
        EXPECT(LLMAR_OK, llmar_model_get_info(model, &info));
        EXPECT(LLMAR_OK, llmar_model_label(model, 0, &text));
        EXPECT(LLMAR_OK, llmar_model_retain(model));
        llmar_model_free(model);
        llmar_model *none = NULL;
        EXPECT(LLMAR_ERROR_IO, llmar_model_open_path("/nowhere", NULL, &none)); /* a detail for each thread */
    }
    llmar_recognizer_free(recognizer);
    return NULL;
}

static void shared_model(void)
{
    pthread_t others[SHARERS];
    for (int i = 0; i < SHARERS; i++) {
        CHECK(pthread_create(&others[i], NULL, share, NULL) == 0);
    }
    for (int i = 0; i < SHARERS; i++) {
        CHECK(pthread_join(others[i], NULL) == 0);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    model = open_model(argv[1]);
    llmar_clip clip = moving_clip(values, 1);
    llmar_recognizer *recognizer = make_recognizer(model, 1);
    prepare(&expected);
    EXPECT(LLMAR_OK, llmar_recognize_clip(recognizer, &clip, NULL, &expected.result));
    llmar_recognizer_free(recognizer);
    shared_model();
    cancelled_from_outside();
    used_by_two();
    llmar_model_free(model);
    return 0;
}
