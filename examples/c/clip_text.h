/*
 * Skeleton clips as plain text, for programs without a JSON parser. `llmar clip FILE --out CLIP.txt` writes them.
 *
 *   layout frames persons joints coords fps
 *   x y z  x y z  ...
 *
 * The first line names the layout and counts what follows; fps is 0 when unknown. Then come frames * persons * joints * coords numbers, in
 * that order, coords fastest, separated by spaces or line breaks. `nan` marks a joint that was not seen.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#ifndef CLIP_TEXT_H
#define CLIP_TEXT_H

#include <stddef.h>
#include <stdint.h>

typedef struct clip_text {
    char layout[129]; /* NUL-terminated; the library's longest name is 128 bytes */
    size_t frames, persons, joints;
    uint32_t coords;
    float fps;
    float *values; /* frames * persons * joints * coords */
} clip_text;

/*
 * Reads a clip. Returns 0, and the caller frees it with clip_text_free; or -1, with one line of what is wrong in error (error_len bytes,
 * with a NUL), and nothing to free.
 */
int clip_text_read(const char *path, clip_text *clip, char *error, size_t error_len);

/* Frees what clip_text_read allocated. */
void clip_text_free(clip_text *clip);

#endif
