/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "clip_text.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The limits of the library, so that a damaged header cannot ask for more memory than a clip can need. */
#define MAX_FRAMES 65536u
#define MAX_PERSONS 16u
#define MAX_JOINTS 256u
#define MAX_FILE (1024u * 1024u * 1024u)

/* A text that is read word by word. */
typedef struct words {
    char *next;    /* where to go on */
    char *end;     /* the text's NUL */
    size_t line;   /* line of the last word, counted from 1 */
    char *cut;     /* where the last word was cut off with a NUL, or NULL */
    char cut_from; /* what stood there */
} words;

static int fail(char *error, size_t error_len, const char *format, ...)
{
    if (error_len > 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error, error_len, format, arguments);
        va_end(arguments);
    }
    return -1;
}

/* The whole file with a NUL behind it, to be freed; NULL and an error otherwise. */
static char *read_file(const char *path, char *error, size_t error_len)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail(error, error_len, "%s: %s", path, strerror(errno));
        return NULL;
    }
    size_t size = 0, room = 64 * 1024;
    char *text = malloc(room + 1);
    while (text != NULL) {
        size += fread(text + size, 1, room - size, file);
        if (size < room) {
            break;
        }
        char *larger = room < MAX_FILE ? realloc(text, 2 * room + 1) : NULL;
        if (larger == NULL) {
            free(text);
        }
        text = larger;
        room *= 2;
    }
    if (text == NULL) {
        fail(error, error_len, "%s: larger than memory or than %u bytes", path, MAX_FILE);
    } else if (ferror(file)) {
        fail(error, error_len, "%s: %s", path, strerror(errno));
        free(text);
        text = NULL;
    } else {
        text[size] = '\0';
        if (strlen(text) != size) {
            fail(error, error_len, "%s: holds a NUL byte: not a text", path);
            free(text);
            text = NULL;
        }
    }
    fclose(file);
    return text;
}

/* The next word, cut off with a NUL until the next call; NULL at the end. */
static char *next_word(words *from)
{
    static const char blank[] = " \t\r\n";
    if (from->cut != NULL) {
        *from->cut = from->cut_from;
        from->cut = NULL;
    }
    for (; *from->next != '\0' && strchr(blank, *from->next) != NULL; from->next++) {
        from->line += *from->next == '\n';
    }
    if (*from->next == '\0') {
        return NULL;
    }
    char *word = from->next;
    from->next += strcspn(word, blank);
    from->cut = from->next;
    from->cut_from = *from->next;
    *from->cut = '\0';
    return word;
}

/* A decimal count from 1 to limit; 0 when the word is none. */
static size_t count_from(const char *word, unsigned long limit)
{
    char *end = NULL;
    if (word == NULL || word[0] < '0' || word[0] > '9') {
        return 0;
    }
    errno = 0;
    unsigned long count = strtoul(word, &end, 10);
    return *end == '\0' && errno == 0 && count <= limit ? count : 0;
}

/* A finite number, or nan where that is allowed. Returns whether the word is one. */
static int number_from(const char *word, int nan_allowed, float *number)
{
    char *end = NULL;
    if (word == NULL) {
        return 0;
    }
    *number = strtof(word, &end);
    return end != word && *end == '\0' && (isfinite(*number) || (nan_allowed && isnan(*number)));
}

static int parse(words *from, const char *path, clip_text *clip, char *error, size_t error_len)
{
    const char *word = next_word(from);
    if (word == NULL || strlen(word) >= sizeof clip->layout) {
        return fail(error, error_len, "%s: expected the name of a layout first", path);
    }
    strcpy(clip->layout, word);
    clip->frames = count_from(next_word(from), MAX_FRAMES);
    clip->persons = count_from(next_word(from), MAX_PERSONS);
    clip->joints = count_from(next_word(from), MAX_JOINTS);
    clip->coords = (uint32_t)count_from(next_word(from), 3);
    int fps_fits = number_from(next_word(from), 0, &clip->fps) && clip->fps >= 0;
    if (clip->frames == 0 || clip->persons == 0 || clip->joints == 0 || clip->coords < 2 || !fps_fits || from->line != 1) {
        return fail(error, error_len,
                    "%s: line 1: expected `layout frames persons joints coords fps`, with at most %u frames, %u persons, %u joints, and 2 or 3"
                    " coords",
                    path, MAX_FRAMES, MAX_PERSONS, MAX_JOINTS);
    }
    size_t count = clip->frames * clip->persons * clip->joints * clip->coords; /* below 2^30 */
    /* A number takes two characters at least, so the text bounds what is allocated. */
    if (count > (size_t)(from->end - from->next) / 2 + 1) {
        return fail(error, error_len, "%s: ends before its %zu numbers", path, count);
    }
    clip->values = malloc(count * sizeof *clip->values);
    if (clip->values == NULL) {
        return fail(error, error_len, "%s: no memory for %zu numbers", path, count);
    }
    for (size_t i = 0; i < count; i++) {
        word = next_word(from);
        if (word == NULL) {
            return fail(error, error_len, "%s: ends after %zu of %zu numbers", path, i, count);
        }
        if (!number_from(word, 1, &clip->values[i])) {
            return fail(error, error_len, "%s: line %zu: `%.40s` is not a number", path, from->line, word);
        }
    }
    word = next_word(from);
    if (word != NULL) {
        return fail(error, error_len, "%s: line %zu: `%.40s` comes after the last of %zu numbers", path, from->line, word, count);
    }
    return 0;
}

int clip_text_read(const char *path, clip_text *clip, char *error, size_t error_len)
{
    char *text = read_file(path, error, error_len);
    if (text == NULL) {
        return -1;
    }
    memset(clip, 0, sizeof *clip);
    words from = {text, text + strlen(text), 1, NULL, '\0'};
    int result = parse(&from, path, clip, error, error_len);
    if (result != 0) {
        clip_text_free(clip);
    }
    free(text);
    return result;
}

void clip_text_free(clip_text *clip)
{
    free(clip->values);
    clip->values = NULL;
}
