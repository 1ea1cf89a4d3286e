/* Take an OTLP trace request in protobuf apart, into columns of numbers. Called by compiled.py, without the GIL.

   Nothing is allocated and nothing is copied but ids: texts and attributes are places in the body. Each different text
   and each different attribute gets a number, by its bytes, in the order in which they come.

   Every read is checked against the end of the message that it is in. A span in which anything is unusual (malformed, a
   rule broken, a text given twice, a field with another wire type, a group) is marked as ODD, and left with its place to
   a decoder in Python, which is the authority. What is unusual around spans ends the scan with UNUSUAL. */

#include <stdio.h>
#include <string.h>

#include "scan.h"

#define NO_TEXT (-2)
#define MOST_PROBES 64 /* of a hash table, half full at most: more means a collision by intent */

/* Where the number of a span stands: numbers[field * spans + row]. As in compiled.py. */
enum {
    START, END, KIND, FLAGS, STATUS, DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS,
    NAME, TRACE_STATE, MESSAGE, /* numbers of texts, or NO_TEXT */
    HAS_PARENT, SCOPE, ATTRIBUTES_END,
    ODD, OFFSET, SIZE, /* of an odd span nothing counts but SCOPE, ATTRIBUTES_END and where it stands in the body */
    NUMBERS
};
const int64_t scan_numbers = NUMBERS; /* for compiled.py to see what it was made of */
/* What an attribute's value is. As in compiled.py. */
enum { OTHER, STRING, BOOL, INT, DOUBLE };

typedef struct { int64_t offset, size; } Place; /* in the body; nothing has size 0 */
typedef struct { Place resource, schema; } Resource;
typedef struct { int64_t resource; Place scope, schema; int64_t spans; } Scope;
typedef struct { int64_t row, is_link; Place place; } Nested; /* an event or a link */
typedef struct { Place place, text; int64_t key, kind, value; } Attribute; /* value: an integer, or a double's bits */

typedef struct {
    const uint8_t *body;
    int64_t size;
    uint64_t seed[2];
    /* How much there is: scan_count() says it, and the caller makes room; scan_fill() says how much of it is in use. */
    int64_t spans, resources, scopes, nested, attributes;
    /* What scan_fill() fills. */
    int64_t *numbers;
    char *trace_ids, *span_ids, *parent_ids; /* hexadecimal: 32, 16 and 16 characters for each span */
    Resource *resource;
    Scope *scope;
    Nested *nest;
    int32_t *attribute;  /* of each attribute of each span, the number of what it says */
    Place *text;         /* different texts: 3 for each span and 1 for each attribute at most */
    Attribute *distinct; /* different attributes */
    int64_t texts, distincts;
    /* Room to work in, all zero. */
    uint32_t *text_slots, *distinct_slots;
    int64_t text_mask, distinct_mask; /* slots - 1; slots are a power of 2, and twice what they hold at least */
    int64_t *last_row; /* by text: the last span, from 1, that has an attribute of that key */
} Request;

typedef struct { const uint8_t *at, *end; } Cursor;
typedef struct { uint64_t number, wire, value; const uint8_t *data; } Field; /* value: a number, or a size */

#define LONGEST 10      /* a varint, in bytes */
#define LONGEST_FRAME 5 /* a tag or a size: protobuf itself refuses what is written with more */

static int read_varint(Cursor *c, uint64_t *value, int most) {
    *value = 0;
    for (int shift = 0; shift < 7 * most && c->at < c->end; shift += 7) {
        uint64_t byte = *c->at++;
        if (shift == 63 && byte > 1) return UNUSUAL;
        *value |= (byte & 127) << shift;
        if (byte < 128) return 1;
    }
    return UNUSUAL;
}

static int read_fixed(Cursor *c, uint64_t *value, int size) {
    if (c->end - c->at < size) return UNUSUAL;
    *value = 0;
    for (int i = 0; i < size; i++) *value |= (uint64_t)c->at[i] << (8 * i);
    c->at += size;
    return 1;
}

/* 1 and the next field, 0 at the end, or UNUSUAL. */
static int next(Cursor *c, Field *f) {
    uint64_t tag;
    if (c->at == c->end) return 0;
    if (read_varint(c, &tag, LONGEST_FRAME) < 0 || tag >> 32 || tag >> 3 == 0) return UNUSUAL;
    f->number = tag >> 3;
    f->wire = tag & 7;
    switch (f->wire) {
    case 0: return read_varint(c, &f->value, LONGEST);
    case 1: return read_fixed(c, &f->value, 8);
    case 5: return read_fixed(c, &f->value, 4);
    case 2:
        if (read_varint(c, &f->value, LONGEST_FRAME) < 0 || f->value > (uint64_t)(c->end - c->at)) return UNUSUAL;
        f->data = c->at;
        c->at += f->value;
        return 1;
    default: return UNUSUAL;
    }
}

static Cursor inside(const Field *f) { return (Cursor){f->data, f->data + f->value}; }

static Place placed(const Request *r, const Field *f) { return (Place){f->data - r->body, (int64_t)f->value}; }

int is_utf8(const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        uint8_t first = *at++;
        if (first < 0x80) continue;
        int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || end - at < more) return 0;
        uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;   /* no overlong form */
        uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;  /* no surrogate, not above U+10FFFF */
        if (*at < low || *at > high) return 0;
        for (at++; --more; at++)
            if (*at < 0x80 || *at > 0xBF) return 0;
    }
    return 1;
}

static uint64_t mixed(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t hashed(const Request *r, const uint8_t *at, int64_t size) {
    uint64_t hash = r->seed[0] ^ (uint64_t)size, part;
    for (; size >= 8; at += 8, size -= 8) {
        memcpy(&part, at, 8);
        hash = mixed(hash ^ part, r->seed[1] | 1);
    }
    part = 0;
    memcpy(&part, at, (size_t)size);
    return mixed(hash ^ part, r->seed[1] | 1);
}

/* The slot of some bytes: it holds their number + 1, or 0 when they come for the first time. NULL: too many probes. */
static uint32_t *slot(const Request *r, uint32_t *slots, int64_t mask, const void *known, int64_t stride, Place p) {
    uint64_t at = hashed(r, r->body + p.offset, p.size);
    for (int probe = 0; probe < MOST_PROBES; probe++, at++) {
        uint32_t *found = &slots[at & (uint64_t)mask];
        if (!*found) return found;
        const Place *other = (const Place *)((const char *)known + (int64_t)(*found - 1) * stride);
        if (other->size == p.size && !memcmp(r->body + other->offset, r->body + p.offset, (size_t)p.size)) return found;
    }
    return NULL;
}

static int64_t text_number(Request *r, Place p) {
    uint32_t *found = slot(r, r->text_slots, r->text_mask, r->text, sizeof(Place), p);
    if (!found) return UNUSUAL;
    if (!*found) {
        if (r->texts == 3 * r->spans + r->attributes) return UNUSUAL; /* no more room */
        if (!is_utf8(r->body + p.offset, r->body + p.offset + p.size)) return UNUSUAL;
        r->text[r->texts] = p;
        *found = (uint32_t)++r->texts;
    }
    return *found - 1;
}

/* An AnyValue: what is not a single string, bool, integer or double is OTHER, for Python to read. */
static int read_value(const Request *r, Cursor c, Attribute *a) {
    Field f;
    int more, fields = 0;
    for (; (more = next(&c, &f)) > 0; fields++) {
        if (f.number == 1 && f.wire == 2) {
            a->kind = STRING;
            a->text = placed(r, &f);
            if (!is_utf8(f.data, f.data + f.value)) return UNUSUAL;
        } else if (f.number == 2 && f.wire == 0) {
            a->kind = BOOL;
            a->value = f.value != 0;
        } else if (f.number == 3 && f.wire == 0) {
            a->kind = INT;
            a->value = (int64_t)f.value;
        } else if (f.number == 4 && f.wire == 1) {
            a->kind = DOUBLE;
            a->value = (int64_t)f.value;
        } else {
            a->kind = OTHER;
            return 1;
        }
    }
    if (fields != 1) a->kind = OTHER;
    return more;
}

static int read_attribute(Request *r, Cursor c, Attribute *a) {
    Field f;
    int more, keys = 0, values = 0;
    Place key = {0, 0};
    a->kind = OTHER;
    a->text = key;
    a->value = 0;
    while ((more = next(&c, &f)) > 0) {
        if (f.number == 1 && f.wire == 2 && !keys++) {
            key = placed(r, &f);
        } else if (f.number == 2 && f.wire == 2 && !values++) {
            if (read_value(r, inside(&f), a) < 0) return UNUSUAL;
        } else if (f.number <= 2) {
            return UNUSUAL;
        }
    }
    a->key = text_number(r, key);
    return more < 0 || a->key < 0 ? UNUSUAL : 1;
}

/* Note an attribute of a span. A key that comes twice is unusual. */
static int add_attribute(Request *r, int64_t row, int64_t at, const Field *f) {
    Place p = placed(r, f);
    uint32_t *found = slot(r, r->distinct_slots, r->distinct_mask, r->distinct, sizeof(Attribute), p);
    if (!found) return UNUSUAL;
    if (!*found) {
        Attribute *a = &r->distinct[r->distincts];
        a->place = p;
        if (read_attribute(r, inside(f), a) < 0) return UNUSUAL;
        *found = (uint32_t)++r->distincts;
    }
    int64_t *last = &r->last_row[r->distinct[*found - 1].key];
    if (*last == row + 1) return UNUSUAL;
    *last = row + 1;
    r->attribute[at] = (int32_t)(*found - 1);
    return 1;
}

static int write_id(const Field *f, int size, char *hex) {
    static const char digits[] = "0123456789abcdef";
    int any = 0;
    if (f->value != (uint64_t)size) return UNUSUAL;
    for (int i = 0; i < size; i++) {
        any |= f->data[i];
        hex[2 * i] = digits[f->data[i] >> 4];
        hex[2 * i + 1] = digits[f->data[i] & 15];
    }
    return any ? 1 : UNUSUAL;
}

/* A text that a span has once, so that it takes no more room than there is for it. */
static int read_text(Request *r, const Field *f, int64_t *number) {
    if (*number != NO_TEXT) return UNUSUAL;
    if (f->value) *number = text_number(r, placed(r, f));
    return *number == UNUSUAL ? UNUSUAL : 1;
}

static int read_status(Request *r, Cursor c, int64_t *code, int64_t *message) {
    Field f;
    int more;
    while ((more = next(&c, &f)) > 0) {
        if (f.number == 2 && f.wire == 2) {
            if (read_text(r, &f, message) < 0) return UNUSUAL;
        } else if (f.number == 3 && f.wire == 0) {
            *code = (int32_t)f.value;
        } else if (f.number == 2 || f.number == 3) {
            return UNUSUAL;
        }
    }
    return more;
}

static const char WIRES[17] = {-1, 2, 2, 2, 2, 2, 0, 1, 1, 2, 0, 2, 0, 2, 0, 2, 5}; /* of a span's fields, by number */

/* As next(), where a field that is known has the wire type that it must have. */
static int next_of_span(Cursor *c, Field *f) {
    int more = next(c, f);
    return more > 0 && f->number <= 16 && f->wire != (uint64_t)WIRES[f->number] ? UNUSUAL : more;
}

/* Of a span that cannot be read, what comes before is counted: read_span() reads no further. */
static void count_span(Request *r, Cursor c) {
    Field f;
    while (next_of_span(&c, &f) > 0) {
        r->attributes += f.number == 9;
        r->nested += f.number == 11 || f.number == 13;
    }
    r->spans++;
}

static int read_span(Request *r, Cursor c, int64_t row, int64_t *field, int64_t *attributes, int64_t *nested) {
    int ids = 0, more;
    Field f;
    while ((more = next_of_span(&c, &f)) > 0) {
        switch (f.number) {
        case 1: if (write_id(&f, 16, r->trace_ids + 32 * row) < 0) return UNUSUAL; ids |= 1; break;
        case 2: if (write_id(&f, 8, r->span_ids + 16 * row) < 0) return UNUSUAL; ids |= 2; break;
        case 3: if (read_text(r, &f, &field[TRACE_STATE]) < 0) return UNUSUAL; break;
        case 4:
            field[HAS_PARENT] = write_id(&f, 8, r->parent_ids + 16 * row) > 0;
            if (f.value && f.value != 8) return UNUSUAL;
            break;
        case 5: if (read_text(r, &f, &field[NAME]) < 0) return UNUSUAL; break;
        case 6: field[KIND] = (int32_t)f.value; break;
        case 7: field[START] = (int64_t)f.value; break;
        case 8: field[END] = (int64_t)f.value; break;
        case 9: if (add_attribute(r, row, (*attributes)++, &f) < 0) return UNUSUAL; break;
        case 10: field[DROPPED_ATTRIBUTES] = (uint32_t)f.value; break;
        case 11: case 13: r->nest[(*nested)++] = (Nested){row, f.number == 13, placed(r, &f)}; break;
        case 12: field[DROPPED_EVENTS] = (uint32_t)f.value; break;
        case 14: field[DROPPED_LINKS] = (uint32_t)f.value; break;
        case 15: if (read_status(r, inside(&f), &field[STATUS], &field[MESSAGE]) < 0) return UNUSUAL; break;
        case 16: field[FLAGS] = (int64_t)f.value; break;
        }
    }
    return more < 0 || ids != 3 ? UNUSUAL : 1;
}

/* The three levels above spans are walked twice: once to count, once to scan. */
typedef struct { int64_t resources, scopes, rows, attributes, nested; } Progress;

static void scan_span(Request *r, const Field *f, Progress *p) {
    const Progress before = *p;
    const Place place = placed(r, f);
    int64_t field[NUMBERS] = {0};
    field[NAME] = field[TRACE_STATE] = field[MESSAGE] = NO_TEXT;
    if (read_span(r, inside(f), p->rows, field, &p->attributes, &p->nested) < 0) {
        *p = before; /* of its texts and attributes those remain that came for the first time: no span has them */
        field[ODD] = 1;
        field[NAME] = field[TRACE_STATE] = field[MESSAGE] = NO_TEXT;
    }
    field[SCOPE] = p->scopes;
    field[ATTRIBUTES_END] = p->attributes;
    field[OFFSET] = place.offset;
    field[SIZE] = place.size;
    for (int i = 0; i < NUMBERS; i++) r->numbers[i * r->spans + p->rows] = field[i];
    p->rows++;
}

static int walk_scope(Request *r, Cursor c, Progress *p, int scanning) {
    Field f;
    Scope s = {p->resources, {0, 0}, {0, 0}, 0};
    int more, scopes = 0, schemas = 0;
    while ((more = next(&c, &f)) > 0) {
        if (f.number > 3) continue;
        if (f.wire != 2) return UNUSUAL;
        if ((f.number == 1 && scopes++) || (f.number == 3 && schemas++)) return UNUSUAL;
        if (f.number == 1) s.scope = placed(r, &f);
        if (f.number == 3) s.schema = placed(r, &f);
        if (f.number != 2) continue;
        if (scanning) scan_span(r, &f, p);
        else count_span(r, inside(&f));
        s.spans++;
    }
    if (scanning) r->scope[p->scopes] = s;
    p->scopes++;
    return more;
}

static int walk_resource(Request *r, Cursor c, Progress *p, int scanning) {
    Field f;
    Resource resource = {{0, 0}, {0, 0}};
    int more, resources = 0, schemas = 0;
    while ((more = next(&c, &f)) > 0) {
        if (f.number > 3) continue;
        if (f.wire != 2) return UNUSUAL;
        if ((f.number == 1 && resources++) || (f.number == 3 && schemas++)) return UNUSUAL;
        if (f.number == 1) resource.resource = placed(r, &f);
        if (f.number == 2 && walk_scope(r, inside(&f), p, scanning) < 0) return UNUSUAL;
        if (f.number == 3) resource.schema = placed(r, &f);
    }
    if (scanning) r->resource[p->resources] = resource;
    p->resources++;
    return more;
}

static int walk(Request *r, int scanning) {
    Cursor c = {r->body, r->body + r->size};
    Progress p = {0};
    Field f;
    int more;
    while ((more = next(&c, &f)) > 0) {
        if (f.number != 1) continue;
        if (f.wire != 2 || walk_resource(r, inside(&f), &p, scanning) < 0) return UNUSUAL;
    }
    r->resources = p.resources;
    r->scopes = p.scopes;
    if (scanning) {
        r->attributes = p.attributes;
        r->nested = p.nested;
    }
    return more;
}

/* 0, or UNUSUAL. */
int scan_count(Request *r) { return walk(r, 0); }

int scan_fill(Request *r) { return walk(r, 1); }

static char *write_text(char *out, const uint8_t *at, int64_t size) {
    *out++ = '"';
    for (const uint8_t *end = at + size; at < end; at++) {
        const char *brief = *at == '"' ? "\\\"" : *at == '\\' ? "\\\\" : *at == '\n' ? "\\n" : *at == '\r' ? "\\r"
                          : *at == '\t' ? "\\t" : *at == '\f' ? "\\f" : *at == '\b' ? "\\b" : NULL;
        if (brief) { *out++ = brief[0]; *out++ = brief[1]; }
        else if (*at < 0x20) out += sprintf(out, "\\u%04x", *at);
        else *out++ = (char)*at;
    }
    *out++ = '"';
    return out;
}

/* Write attributes of kind STRING, BOOL or INT as "key":value, one behind the other, and where each ends.
   An attribute takes at most six times its size and 32 bytes. */
void scan_write(const Request *r, const int32_t *attributes, char *out, int32_t *ends, int64_t count) {
    char *at = out;
    for (int64_t i = 0; i < count; i++) {
        const Attribute *a = &r->distinct[attributes[i]];
        const Place *key = &r->text[a->key];
        at = write_text(at, r->body + key->offset, key->size);
        *at++ = ':';
        if (a->kind == STRING) at = write_text(at, r->body + a->text.offset, a->text.size);
        else if (a->kind == BOOL) at += sprintf(at, a->value ? "true" : "false");
        else at += sprintf(at, "%lld", (long long)a->value);
        ends[i] = (int32_t)(at - out);
    }
}

#define FIELDS 32   /* as in compiled.py */
#define DEEPEST 100 /* protobuf itself refuses what is deeper */
#define NOTHING (-1) /* to count */
#define LISTED (-2)  /* a text of many, or many numbers: one part, and one more for each 8 bytes */

/* How many parts a message holds at all levels: messages, and what is LISTED. Counting ends past the limit. What cannot
   be read ends its message only: its neighbours are read all the same.

   inner: by message and field, the message that the field holds, LISTED or NOTHING. */
int64_t count_parts(const uint8_t *body, int64_t size, const int16_t *inner, int64_t limit) {
    struct { const uint8_t *end; int64_t message; } around[DEEPEST];
    Cursor c = {body, body + size};
    int64_t parts = 0, message = 0;
    int depth = 0;
    Field f;
    for (;;) {
        if (next(&c, &f) <= 0) {
            if (!depth) return parts;
            c.at = c.end;
            c.end = around[--depth].end;
            message = around[depth].message;
            continue;
        }
        int64_t held = f.wire == 2 && f.number < FIELDS ? inner[FIELDS * message + (int64_t)f.number] : NOTHING;
        if (held == NOTHING) continue;
        parts += held == LISTED ? 1 + (int64_t)(f.value / 8) : 1;
        if (parts > limit) return parts;
        if (held == LISTED || depth == DEEPEST) continue;
        around[depth].end = c.end;
        around[depth++].message = message;
        c = inside(&f);
        message = held;
    }
}
