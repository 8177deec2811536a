/*
 * Names the actions in skeleton clips:
 *
 *   recognize [--threads N] MODEL.llmar CLIP.txt...
 *
 * For each clip, one line with the clip, the best labels with their probabilities, the share of joints that were missing, and the time.
 * Exits with 1 when any clip could not be recognised, with 2 when nothing could be.
 *
 *   cc -O2 -Iinclude -o recognize examples/c/recognize.c examples/c/clip_text.c -lllmar -lm
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clip_text.h"
#include "llmar.h"

#define LABELS_SHOWN 3

/* Prints what went wrong, in the library's words. */
static void complain(const char *about, llmar_status status)
{
    char detail[512];
    llmar_last_error(detail, sizeof detail);
    fprintf(stderr, "recognize: %s: %s (status %d, %s)\n", about, detail, (int)status, llmar_status_string(status));
}

static double seconds_now(void)
{
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The file's name without its folders. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* Recognises one clip and prints the answer. Returns 0 or -1. */
static int recognize_file(const llmar_model *model, llmar_recognizer *recognizer, const char *path)
{
    clip_text text;
    char error[512];
    if (clip_text_read(path, &text, error, sizeof error) != 0) {
        fprintf(stderr, "recognize: %s\n", error);
        return -1;
    }

    llmar_clip clip = {.struct_size = sizeof clip};
    clip.layout = text.layout;
    clip.frames = text.frames;
    clip.persons = text.persons;
    clip.joint_count = text.joints;
    clip.coords = text.coords;
    clip.joints = text.values;
    clip.fps = text.fps;

    llmar_label_score top[LABELS_SHOWN];
    llmar_recognition answer = {.struct_size = sizeof answer};
    answer.top = top;
    answer.top_capacity = LABELS_SHOWN;

    double begin = seconds_now();
    llmar_status status = llmar_recognize_clip(recognizer, &clip, NULL, &answer);
    double milliseconds = 1e3 * (seconds_now() - begin);
    clip_text_free(&text);
    if (status != LLMAR_OK) {
        complain(path, status);
        return -1;
    }

    printf("%-16s", base_name(path));
    for (size_t i = 0; i < answer.top_count; i++) {
        const char *label = "?";
        llmar_model_label(model, top[i].label, &label);
        printf("  %-28s %5.1f %%", label, 100.0 * (double)top[i].probability);
    }
    printf("  missing %.1f %%  %.1f ms%s\n", 100.0 * (double)answer.missing, milliseconds, answer.unknown ? "  (unknown: too unsure)" : "");
    return 0;
}

int main(int argc, char **argv)
{
    llmar_recognizer_params params = {.struct_size = sizeof params};
    params.top_k = LABELS_SHOWN;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--threads") == 0) {
        char *end = NULL;
        unsigned long threads = strtoul(argv[2], &end, 10);
        if (*argv[2] < '0' || *argv[2] > '9' || *end != '\0' || threads > 256) {
            fprintf(stderr, "recognize: --threads: expected 0 to 256, got `%s`\n", argv[2]);
            return 2;
        }
        params.threads = (uint32_t)threads;
        at = 3;
    }
    if (argc - at < 2) {
        fprintf(stderr, "usage: recognize [--threads N] MODEL.llmar CLIP.txt...\n");
        return 2;
    }
    uint32_t abi = llmar_abi_version();
    if (abi >> 16 != LLMAR_ABI_MAJOR || (abi & 0xffffu) < LLMAR_ABI_MINOR) {
        fprintf(stderr, "recognize: built for ABI %d.%d, libllmar %s is of another\n", LLMAR_ABI_MAJOR, LLMAR_ABI_MINOR, llmar_version_string());
        return 2;
    }

    llmar_model *model = NULL;
    llmar_status status = llmar_model_open_path(argv[at], NULL, &model);
    if (status != LLMAR_OK) {
        complain(argv[at], status);
        return 2;
    }
    llmar_recognizer *recognizer = NULL;
    status = llmar_recognizer_create(model, &params, &recognizer);
    if (status != LLMAR_OK) {
        complain("recognizer", status);
        llmar_model_free(model);
        return 2;
    }

    int failed = 0;
    for (int i = at + 1; i < argc; i++) {
        failed |= recognize_file(model, recognizer, argv[i]) != 0;
    }
    llmar_recognizer_free(recognizer);
    llmar_model_free(model);
    return failed;
}
