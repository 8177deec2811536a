/* The text reader of the examples, on good and bad files. Argument: FOLDER. SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "clip_text.h"
#include "support.h"

static const char *folder;

/* Reads bytes as a clip; returns what clip_text_read does. */
static int read_bytes(const char *bytes, size_t size, clip_text *clip, char error[256])
{
    char path[1024];
    CHECK(snprintf(path, sizeof path, "%s/clip.txt", folder) < (int)sizeof path);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
    memset(error, 0, 256);
    return clip_text_read(path, clip, error, 256);
}

static void refused(const char *text, const char *reason)
{
    clip_text clip;
    char error[256];
    if (read_bytes(text, strlen(text), &clip, error) == 0 || strstr(error, reason) == NULL || strchr(error, '\n') != NULL) {
        fprintf(stderr, "`%s`: expected an error with `%s`, got `%s`\n", text, reason, error);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    folder = argv[1];
    clip_text clip;
    char error[256];
    static const char good[] = "my_layout 2 1 2 3 29.5\n1 -2.5e0 3\t4 nan 6\r\n7 8 9 10 11 12";
    CHECK(read_bytes(good, sizeof good - 1, &clip, error) == 0);
    CHECK(strcmp(clip.layout, "my_layout") == 0 && clip.frames == 2 && clip.persons == 1 && clip.joints == 2 && clip.coords == 3);
    CHECK(clip.fps == 29.5f && clip.values[1] == -2.5f && isnan(clip.values[4]) && clip.values[11] == 12);
    clip_text_free(&clip);

    refused("", "name of a layout");
    refused(" \n \n", "name of a layout");
    refused("l", "line 1");
    refused("l 1 1 1 2", "line 1");
    refused("l\n1 1 1 2 0\n1 2", "line 1");
    refused("l 0 1 1 2 0\n", "line 1");
    refused("l -1 1 1 2 0\n1 2", "line 1");
    refused("l 1x 1 1 2 0\n1 2", "line 1");
    refused("l 65537 1 1 2 0\n1 2", "line 1");
    refused("l 99999999999999999999999 1 1 2 0\n1 2", "line 1");
    refused("l 1 17 1 2 0\n1 2", "line 1");
    refused("l 1 1 257 2 0\n1 2", "line 1");
    refused("l 1 1 1 1 0\n1", "line 1");
    refused("l 1 1 1 4 0\n1 2 3 4", "line 1");
    refused("l 1 1 1 2 -1\n1 2", "line 1");
    refused("l 1 1 1 2 nan\n1 2", "line 1");
    refused("l 65536 16 256 3 0\n1 2", "ends before its 805306368 numbers"); /* without allocating them */
    refused("l 1 1 2 2 0\n1 2 3", "ends after 3 of 4");
    refused("l 1 1 1 2 0\n1 two", "line 2: `two`");
    refused("l 1 1 1 2 0\n1 2x", "`2x`");
    refused("l 1 1 1 2 0\n1 inf", "`inf`");
    refused("l 1 1 1 2 0\n1 1e999", "`1e999`");
    refused("l 1 1 1 2 0\n1 2\n3", "line 3: `3` comes after");
    CHECK(read_bytes("l 1 1 1 2 0\n1\0002", 15, &clip, error) != 0 && strstr(error, "NUL") != NULL);
    char long_name[400];
    memset(long_name, 'x', sizeof long_name);
    CHECK(read_bytes(long_name, sizeof long_name, &clip, error) != 0);
    CHECK(clip_text_read("/nowhere/clip.txt", &clip, error, sizeof error) != 0 && strstr(error, "/nowhere") != NULL);
    CHECK(clip_text_read(folder, &clip, error, sizeof error) != 0); /* a folder is not a file */
    CHECK(clip_text_read("/nowhere/clip.txt", &clip, NULL, 0) != 0);
    return 0;
}
