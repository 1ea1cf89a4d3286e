/* What scan.c and transcode.c share. */

#include <stdint.h>

#define UNUSUAL (-1) /* for a decoder in Python, which is the authority on what is refused and why */

int is_utf8(const uint8_t *at, const uint8_t *end);
