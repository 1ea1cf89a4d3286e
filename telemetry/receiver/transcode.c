/* Turn an OTLP trace request in JSON into the same request in protobuf, for scan.c. Called by compiled.py, without the
   GIL.

   RULES say which keys each message has, and how their values are written; other keys are skipped. Every read is checked
   against the end of the body, and every write against the end of the room. A span in which anything is unusual (a value
   of another type than its key's, a key that comes twice, an escaped key, half of a surrogate pair, an integer written as
   1.0) is written as a span without fields, and left with its place to the decoder in Python, which is the authority.
   What is unusual around spans, is not JSON or is nested deeply ends it with UNUSUAL. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

#define MOST_NESTED 64  /* objects and lists */
#define LONGEST_NUMBER 64

enum { VARINT, FIXED_64, SIZED, FIXED_32 = 5 }; /* protobuf's wire types */
enum { MESSAGE, TEXT, HEX, BASE64, COUNT, FLAGS, ENUM, INTEGER, TIME, BOOL, DOUBLE };
enum {
    REQUEST, RESOURCE_SPANS, RESOURCE, ENTITY, SCOPE_SPANS, SCOPE, SPAN, EVENT, LINK, STATUS, ATTRIBUTE, VALUE, LIST, MAP,
    MESSAGES
};

typedef struct { const char *key; int number, form, is_list, message; } Rule;

#define ONE(form) form, 0, 0
#define MANY(form) form, 1, 0
#define PART(message) MESSAGE, 0, message
#define PARTS(message) MESSAGE, 1, message
static const Rule RULES[MESSAGES][17] = {
    [REQUEST] = {{"resourceSpans", 1, PARTS(RESOURCE_SPANS)}},
    [RESOURCE_SPANS] =
        {{"resource", 1, PART(RESOURCE)}, {"scopeSpans", 2, PARTS(SCOPE_SPANS)}, {"schemaUrl", 3, ONE(TEXT)}},
    [RESOURCE] =
        {{"attributes", 1, PARTS(ATTRIBUTE)}, {"droppedAttributesCount", 2, ONE(COUNT)},
         {"entityRefs", 3, PARTS(ENTITY)}},
    [ENTITY] =
        {{"schemaUrl", 1, ONE(TEXT)}, {"type", 2, ONE(TEXT)}, {"idKeys", 3, MANY(TEXT)},
         {"descriptionKeys", 4, MANY(TEXT)}},
    [SCOPE_SPANS] = {{"scope", 1, PART(SCOPE)}, {"spans", 2, PARTS(SPAN)}, {"schemaUrl", 3, ONE(TEXT)}},
    [SCOPE] =
        {{"name", 1, ONE(TEXT)}, {"version", 2, ONE(TEXT)}, {"attributes", 3, PARTS(ATTRIBUTE)},
         {"droppedAttributesCount", 4, ONE(COUNT)}},
    [SPAN] =
        {{"traceId", 1, ONE(HEX)}, {"spanId", 2, ONE(HEX)}, {"traceState", 3, ONE(TEXT)}, {"parentSpanId", 4, ONE(HEX)},
         {"name", 5, ONE(TEXT)}, {"kind", 6, ONE(ENUM)}, {"startTimeUnixNano", 7, ONE(TIME)},
         {"endTimeUnixNano", 8, ONE(TIME)}, {"attributes", 9, PARTS(ATTRIBUTE)},
         {"droppedAttributesCount", 10, ONE(COUNT)}, {"events", 11, PARTS(EVENT)}, {"droppedEventsCount", 12, ONE(COUNT)},
         {"links", 13, PARTS(LINK)}, {"droppedLinksCount", 14, ONE(COUNT)}, {"status", 15, PART(STATUS)},
         {"flags", 16, ONE(FLAGS)}},
    [EVENT] =
        {{"timeUnixNano", 1, ONE(TIME)}, {"name", 2, ONE(TEXT)}, {"attributes", 3, PARTS(ATTRIBUTE)},
         {"droppedAttributesCount", 4, ONE(COUNT)}},
    [LINK] =
        {{"traceId", 1, ONE(HEX)}, {"spanId", 2, ONE(HEX)}, {"traceState", 3, ONE(TEXT)},
         {"attributes", 4, PARTS(ATTRIBUTE)}, {"droppedAttributesCount", 5, ONE(COUNT)}, {"flags", 6, ONE(FLAGS)}},
    [STATUS] = {{"message", 2, ONE(TEXT)}, {"code", 3, ONE(ENUM)}},
    [ATTRIBUTE] = {{"key", 1, ONE(TEXT)}, {"value", 2, PART(VALUE)}},
    [VALUE] =
        {{"stringValue", 1, ONE(TEXT)}, {"boolValue", 2, ONE(BOOL)}, {"intValue", 3, ONE(INTEGER)},
         {"doubleValue", 4, ONE(DOUBLE)}, {"arrayValue", 5, PART(LIST)}, {"kvlistValue", 6, PART(MAP)},
         {"bytesValue", 7, ONE(BASE64)}},
    [LIST] = {{"values", 1, PARTS(VALUE)}},
    [MAP] = {{"values", 1, PARTS(ATTRIBUTE)}},
};

typedef struct {
    const uint8_t *at, *end; /* what is left to read */
    uint8_t *out, *room;     /* and room to write */
    const uint8_t *body;
    int64_t *span, *spans_end; /* room for where each span begins in the body */
} Way;
typedef struct { const uint8_t *at, *end; int escaped; } Text;        /* a text without its quotes, or a number */

static int put(Way *w, const void *bytes, int64_t size) {
    if (w->room - w->out < size) return UNUSUAL;
    memcpy(w->out, bytes, (size_t)size);
    w->out += size;
    return 1;
}

static int put_varint(Way *w, uint64_t value) {
    uint8_t bytes[10];
    int size = 0;
    for (; value > 127; value >>= 7) bytes[size++] = (uint8_t)(value | 128);
    bytes[size++] = (uint8_t)value;
    return put(w, bytes, size);
}

static int put_fixed(Way *w, uint64_t value, int size) {
    uint8_t bytes[8];
    for (int i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    return put(w, bytes, size);
}

/* Begin a part whose size is known when it ends. */
static uint8_t *begin_part(Way *w) { return put(w, "", 1) < 0 ? NULL : w->out; }

static int end_part(Way *w, uint8_t *part) {
    uint64_t size = (uint64_t)(w->out - part);
    int more = 0;
    for (uint64_t left = size >> 7; left; left >>= 7) more++;
    if (w->room - w->out < more) return UNUSUAL;
    if (more) memmove(part + more, part, size);
    w->out += more;
    for (part--; more--; size >>= 7) *part++ = (uint8_t)(size | 128);
    *part = (uint8_t)size;
    return 1;
}

static int peek(Way *w) {
    while (w->at < w->end && (*w->at == ' ' || *w->at == '\n' || *w->at == '\r' || *w->at == '\t')) w->at++;
    return w->at < w->end ? *w->at : UNUSUAL;
}

/* Whether this character comes next; if so, go past it. */
static int takes(Way *w, char character) {
    if (peek(w) != character) return 0;
    w->at++;
    return 1;
}

static int takes_word(Way *w, const char *word) {
    int64_t size = (int64_t)strlen(word);
    if (peek(w) != word[0] || w->end - w->at < size || memcmp(w->at, word, (size_t)size)) return 0;
    w->at += size;
    return 1;
}

static int hex(uint8_t digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    digit |= 32;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : UNUSUAL;
}

/* Four hexadecimal digits, or UNUSUAL. */
static int32_t read_unit(const uint8_t *at, const uint8_t *end) {
    int32_t unit = 0;
    if (end - at < 4) return UNUSUAL;
    for (int i = 0; i < 4; i++) {
        int digit = hex(at[i]);
        if (digit < 0) return UNUSUAL;
        unit = unit << 4 | digit;
    }
    return unit;
}

static int read_text(Way *w, Text *t) {
    if (!takes(w, '"')) return UNUSUAL;
    t->at = w->at;
    t->escaped = 0;
    for (; w->at < w->end; w->at++) {
        if (*w->at == '"') {
            t->end = w->at++;
            return 1;
        }
        if (*w->at < 0x20) return UNUSUAL;
        if (*w->at != '\\') continue;
        t->escaped = 1;
        if (++w->at == w->end || !strchr("\"\\/bfnrtu", *w->at) || !*w->at) return UNUSUAL;
        if (*w->at == 'u' && read_unit(w->at + 1, w->end) < 0) return UNUSUAL;
    }
    return UNUSUAL;
}

static int read_digits(Way *w) {
    const uint8_t *from = w->at;
    while (w->at < w->end && *w->at >= '0' && *w->at <= '9') w->at++;
    return w->at > from ? 1 : UNUSUAL;
}

static int read_number(Way *w, Text *t) {
    peek(w);
    t->at = w->at;
    if (w->at < w->end && *w->at == '-') w->at++;
    if (w->at < w->end && *w->at == '0') w->at++;
    else if (read_digits(w) < 0) return UNUSUAL;
    if (w->at < w->end && *w->at == '.' && (w->at++, read_digits(w)) < 0) return UNUSUAL;
    if (w->at < w->end && (*w->at | 32) == 'e') {
        w->at++;
        if (w->at < w->end && (*w->at == '+' || *w->at == '-')) w->at++;
        if (read_digits(w) < 0) return UNUSUAL;
    }
    t->end = w->at;
    return t->end - t->at <= LONGEST_NUMBER ? 1 : UNUSUAL;
}

/* A value of a key that OTLP does not know. */
static int skip(Way *w, int depth) {
    Text t;
    int first = peek(w);
    if (first == '"') return read_text(w, &t);
    if (first != '{' && first != '[')
        return takes_word(w, "true") || takes_word(w, "false") || takes_word(w, "null") ? 1 : read_number(w, &t);
    char last = first == '{' ? '}' : ']';
    if (depth > MOST_NESTED) return UNUSUAL;
    w->at++;
    if (takes(w, last)) return 1;
    do {
        if (first == '{' && (read_text(w, &t) < 0 || !takes(w, ':'))) return UNUSUAL;
        if (skip(w, depth + 1) < 0) return UNUSUAL;
    } while (takes(w, ','));
    return takes(w, last) ? 1 : UNUSUAL;
}

static int put_character(Way *w, uint32_t c) {
    uint8_t bytes[4];
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t marks[4] = {0, 0xC0, 0xE0, 0xF0};
    for (int i = more; i > 0; i--, c >>= 6) bytes[i] = 0x80 | (c & 0x3F);
    bytes[0] = (uint8_t)(marks[more] | c);
    return put(w, bytes, more + 1);
}

static int unescape(Way *w, Text t) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    while (t.at < t.end) {
        const uint8_t *plain = t.at;
        while (t.at < t.end && *t.at != '\\') t.at++;
        if (put(w, plain, t.at - plain) < 0) return UNUSUAL;
        if (t.at == t.end) break;
        uint8_t name = t.at[1];
        t.at += 2;
        if (name != 'u') {
            if (put(w, &meant[strchr(names, name) - names], 1) < 0) return UNUSUAL;
            continue;
        }
        uint32_t character = (uint32_t)read_unit(t.at, t.end);
        t.at += 4;
        if (character >= 0xD800 && character < 0xE000) {
            int32_t low = t.end - t.at < 6 || t.at[0] != '\\' || t.at[1] != 'u' ? UNUSUAL : read_unit(t.at + 2, t.end);
            if (character >= 0xDC00 || low < 0xDC00 || low >= 0xE000) return UNUSUAL;
            character = 0x10000 + ((character - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
            t.at += 6;
        }
        if (put_character(w, character) < 0) return UNUSUAL;
    }
    return 1;
}

static int put_text(Way *w) {
    Text t;
    if (read_text(w, &t) < 0) return UNUSUAL;
    if (!t.escaped) return put_varint(w, (uint64_t)(t.end - t.at)) < 0 ? UNUSUAL : put(w, t.at, t.end - t.at);
    uint8_t *part = begin_part(w);
    return part && unescape(w, t) > 0 ? end_part(w, part) : UNUSUAL;
}

static int put_hex(Way *w) {
    Text t;
    if (read_text(w, &t) < 0 || (t.end - t.at) % 2) return UNUSUAL;
    if (put_varint(w, (uint64_t)(t.end - t.at) / 2) < 0 || w->room - w->out < (t.end - t.at) / 2) return UNUSUAL;
    for (; t.at < t.end; t.at += 2) {
        int high = hex(t.at[0]), low = hex(t.at[1]);
        if (high < 0 || low < 0) return UNUSUAL;
        *w->out++ = (uint8_t)(high << 4 | low);
    }
    return 1;
}

static int sextet(uint8_t letter) {
    if (letter >= 'A' && letter <= 'Z') return letter - 'A';
    if (letter >= 'a' && letter <= 'z') return letter - 'a' + 26;
    if (letter >= '0' && letter <= '9') return letter - '0' + 52;
    return letter == '+' || letter == '-' ? 62 : letter == '/' || letter == '_' ? 63 : UNUSUAL;
}

static int put_base64(Way *w) {
    Text t;
    uint32_t bits = 0, count = 0;
    if (read_text(w, &t) < 0) return UNUSUAL;
    while (t.end > t.at && t.end[-1] == '=') t.end--;
    int64_t size = (t.end - t.at) * 3 / 4;
    if ((t.end - t.at) % 4 == 1 || put_varint(w, (uint64_t)size) < 0 || w->room - w->out < size) return UNUSUAL;
    for (; t.at < t.end; t.at++) {
        int six = sextet(*t.at);
        if (six < 0) return UNUSUAL;
        bits = bits << 6 | (uint32_t)six;
        count += 6;
        if (count >= 8) *w->out++ = (uint8_t)(bits >> (count -= 8));
    }
    return 1;
}

typedef __int128 Whole;

/* An integer within limits; as text too, unless it is an enum. */
static int read_whole(Way *w, int quoted, Whole low, Whole high, uint64_t *value) {
    Text t;
    Whole whole = 0;
    if (peek(w) == '"' ? !quoted || read_text(w, &t) < 0 : read_number(w, &t) < 0) return UNUSUAL;
    int negative = t.at < t.end && *t.at == '-';
    t.at += negative;
    if (t.at == t.end || t.end - t.at > 20) return UNUSUAL;
    for (; t.at < t.end; t.at++) {
        if (*t.at < '0' || *t.at > '9') return UNUSUAL;
        whole = whole * 10 + (*t.at - '0');
    }
    whole = negative ? -whole : whole;
    *value = (uint64_t)whole;
    return whole < low || whole > high ? UNUSUAL : 1;
}

/* A double. Zero with a sign is unusual: -0 is an integer without one, -0.0 a double with one. */
static int read_double(Way *w, uint64_t *bits) {
    Text t;
    char text[LONGEST_NUMBER + 1], *end;
    if (read_number(w, &t) < 0) return UNUSUAL;
    memcpy(text, t.at, (size_t)(t.end - t.at));
    text[t.end - t.at] = 0;
    double value = strtod(text, &end);
    memcpy(bits, &value, 8);
    return *end || !isfinite(value) || (value == 0 && text[0] == '-') ? UNUSUAL : 1;
}

static int read_bool(Way *w, uint64_t *value) {
    *value = (uint64_t)takes_word(w, "true");
    return *value || takes_word(w, "false") ? 1 : UNUSUAL;
}

static int put_message(Way *w, int message, int depth);

static int put_span(Way *w, int depth) {
    uint8_t *part = begin_part(w);
    if (!part || peek(w) != '{' || w->span == w->spans_end) return UNUSUAL;
    const uint8_t *at = w->at;
    *w->span++ = at - w->body;
    if (put_message(w, SPAN, depth) < 0) {
        w->at = at;
        w->out = part;
        if (skip(w, depth) < 0) return UNUSUAL;
    }
    return end_part(w, part);
}

static int put_value(Way *w, const Rule *rule, int depth) {
    static const int wires[] = {
        [MESSAGE] = SIZED, [TEXT] = SIZED, [HEX] = SIZED, [BASE64] = SIZED, [COUNT] = VARINT, [FLAGS] = FIXED_32,
        [ENUM] = VARINT, [INTEGER] = VARINT, [TIME] = FIXED_64, [BOOL] = VARINT, [DOUBLE] = FIXED_64,
    };
    uint64_t value;
    uint8_t *part;
    if (put_varint(w, (uint64_t)(rule->number << 3 | wires[rule->form])) < 0) return UNUSUAL;
    switch (rule->form) {
    case MESSAGE:
        if (rule->message == SPAN) return put_span(w, depth);
        part = begin_part(w);
        return part && put_message(w, rule->message, depth) > 0 ? end_part(w, part) : UNUSUAL;
    case TEXT: return put_text(w);
    case HEX: return put_hex(w);
    case BASE64: return put_base64(w);
    case COUNT: return read_whole(w, 1, 0, UINT32_MAX, &value) < 0 ? UNUSUAL : put_varint(w, value);
    case FLAGS: return read_whole(w, 1, 0, UINT32_MAX, &value) < 0 ? UNUSUAL : put_fixed(w, value, 4);
    case ENUM: return read_whole(w, 0, INT32_MIN, INT32_MAX, &value) < 0 ? UNUSUAL : put_varint(w, value);
    case INTEGER: return read_whole(w, 1, INT64_MIN, INT64_MAX, &value) < 0 ? UNUSUAL : put_varint(w, value);
    case TIME: return read_whole(w, 1, 0, UINT64_MAX, &value) < 0 ? UNUSUAL : put_fixed(w, value, 8);
    case BOOL: return read_bool(w, &value) < 0 ? UNUSUAL : put_varint(w, value);
    default: return read_double(w, &value) < 0 ? UNUSUAL : put_fixed(w, value, 8);
    }
}

static int put_values(Way *w, const Rule *rule, int depth) {
    if (!rule->is_list) return put_value(w, rule, depth);
    if (!takes(w, '[')) return UNUSUAL;
    if (takes(w, ']')) return 1;
    do {
        if (put_value(w, rule, depth) < 0) return UNUSUAL;
    } while (takes(w, ','));
    return takes(w, ']') ? 1 : UNUSUAL;
}

/* The rule of a key, or UNUSUAL. Keys usually come in the order of the rules, so look there first. */
static int find_rule(const Rule *rules, Text key, int expected) {
    size_t size = (size_t)(key.end - key.at);
    for (int at = expected; rules[at].key; at++)
        if (strlen(rules[at].key) == size && !memcmp(rules[at].key, key.at, size)) return at;
    return expected ? find_rule(rules, key, 0) : UNUSUAL;
}

static int put_message(Way *w, int message, int depth) {
    const Rule *rules = RULES[message];
    uint32_t seen = 0;
    int expected = 0, values = 0;
    if (depth > MOST_NESTED || !takes(w, '{')) return UNUSUAL;
    if (takes(w, '}')) return 1;
    do {
        Text key;
        if (read_text(w, &key) < 0 || key.escaped || !takes(w, ':')) return UNUSUAL;
        int found = find_rule(rules, key, expected);
        if (found < 0) {
            if (skip(w, depth + 1) < 0) return UNUSUAL;
            continue;
        }
        if (seen >> found & 1) return UNUSUAL;
        seen |= 1u << found;
        expected = found + 1;
        if (takes_word(w, "null")) continue;
        if (message == VALUE && values++) return UNUSUAL;
        if (put_values(w, &rules[found], depth + 1) < 0) return UNUSUAL;
    } while (takes(w, ','));
    return takes(w, '}') ? 1 : UNUSUAL;
}

/* The size of the request in protobuf, or UNUSUAL.

   span: where each span begins in the body, at most `spans` of them. */
int64_t transcode(const uint8_t *body, int64_t size, uint8_t *out, int64_t room, int64_t *span, int64_t spans) {
    Way w = {body, body + size, out, out + room, body, span, span + spans};
    if (!is_utf8(body, body + size) || put_message(&w, REQUEST, 0) < 0 || peek(&w) != UNUSUAL) return UNUSUAL;
    return w.out - out;
}

/* Adds to a shape, as parts.py has it, what a piece of JSON has. No piece ends within an escape. */
void json_shape(const uint8_t *piece, int64_t size, int64_t *shape) {
    int64_t in_text = shape[0], depth = shape[1], deepest = shape[2], brackets = shape[3], commas = shape[4];
    for (int64_t i = 0; i < size; i++) {
        uint8_t c = piece[i];
        if (c == '\\') i += i + 1 < size && (piece[i + 1] == '\\' || piece[i + 1] == '"');
        else if (c == '"') in_text ^= 1;
        else if (in_text) continue;
        else if (c == ',') commas++;
        else if (c == '}' || c == ']') depth--;
        else if (c == '{' || c == '[') {
            brackets++;
            if (++depth > deepest) deepest = depth;
        }
    }
    shape[0] = in_text, shape[1] = depth, shape[2] = deepest, shape[3] = brackets, shape[4] = commas;
}
