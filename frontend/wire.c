/* wire.c — reads protocol-buffer messages in place. */
#include "frontend/wire.h"
#include "frontend/file.h"
#include <stdio.h>
#include <string.h>

enum { GROUP_BEGIN = 3, GROUP_END = 4 };

fe_wire fe_wire_open(tn_ctx *ctx, const char *file, const void *data, size_t n, const char *what) {
  const uint8_t *p = data;
  return (fe_wire){.ctx = ctx, .file = file, .base = p, .begin = p, .p = p, .end = p + n, .what = what};
}

fe_wire fe_wire_enter(const fe_wire *outer, const fe_field *f, const char *what, int name_field, int kind_field) {
  if (f->type != FE_WIRE_LEN)
    fe_wire_fail(outer, f->at, TN_EINPUT, "field %u is no message (wire type %d)", f->number, f->type);
  if (outer->depth + 1 >= FE_WIRE_DEPTH)
    fe_wire_fail(outer, f->at, TN_EINPUT, "messages are nested more than %d deep", FE_WIRE_DEPTH);
  fe_wire w = *outer;
  w.begin = w.p = f->data;
  w.end = f->data + f->n;
  w.outer = outer;
  w.what = what;
  w.name_field = (uint8_t)name_field;
  w.kind_field = (uint8_t)kind_field;
  w.depth = outer->depth + 1;
  return w;
}

void fe_wire_rewind(fe_wire *w) { w->p = w->begin; }

/* Returns null and leaves *p when fine, else the reason. At most ten bytes, 64 bits. */
static const char *varint(const uint8_t **p, const uint8_t *end, uint64_t *value) {
  const uint8_t *s = *p;
  uint64_t v = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (s == end) return "the message ends inside a number";
    uint8_t b = *s++;
    if (shift == 63 && b > 1) return "a number has more than 64 bits";
    v |= (uint64_t)(b & 127) << shift;
    if (!(b & 128)) {
      *value = v;
      *p = s;
      return NULL;
    }
  }
  return "a number has more than ten bytes";
}

/* One key and its value; a group comes back as type 3 (its inside is not read). */
static const char *field(const uint8_t **p, const uint8_t *end, fe_field *f) {
  uint64_t key, n;
  const uint8_t *s = *p;
  f->at = s;
  f->data = NULL;
  f->n = 0;
  f->value = 0;
  const char *bad = varint(&s, end, &key);
  if (bad) return bad;
  if (key >> 3 == 0 || key >> 3 > 0x1fffffff) return "a field number is out of range";
  f->number = (uint32_t)(key >> 3);
  f->type = key & 7;
  switch (f->type) {
  case FE_WIRE_VARINT:
    if ((bad = varint(&s, end, &f->value))) return bad;
    break;
  case FE_WIRE_I64:
    if (end - s < 8) return "the message ends inside a 64-bit field";
    memcpy(&f->value, s, 8);
    s += 8;
    break;
  case FE_WIRE_I32: {
    uint32_t bits;
    if (end - s < 4) return "the message ends inside a 32-bit field";
    memcpy(&bits, s, 4);
    f->value = bits;
    s += 4;
    break;
  }
  case FE_WIRE_LEN:
    if ((bad = varint(&s, end, &n))) return bad;
    if (n > (uint64_t)(end - s)) return "a field is longer than the message that holds it";
    f->data = s;
    f->n = (size_t)n;
    s += n;
    break;
  case GROUP_BEGIN:
  case GROUP_END: break;
  default: return "an unknown wire type";
  }
  *p = s;
  return NULL;
}

/* Skips a group whose first key was just read. Depth of nested groups counts as messages. */
static const char *skip_group(const uint8_t **p, const uint8_t *end, uint32_t number, int depth) {
  uint32_t open[FE_WIRE_DEPTH];
  int n = 0;
  open[n++] = number;
  while (n) {
    fe_field f;
    if (*p == end) return "the message ends inside a group";
    const char *bad = field(p, end, &f);
    if (bad) return bad;
    if (f.type == GROUP_BEGIN) {
      if (depth + n >= FE_WIRE_DEPTH) return "groups are nested too deep";
      open[n++] = f.number;
    } else if (f.type == GROUP_END && f.number != open[--n]) {
      return "a group ends with another field's number";
    }
  }
  return NULL;
}

bool fe_wire_next(fe_wire *w, fe_field *f) {
  while (w->p < w->end) {
    const uint8_t *at = w->p;
    const char *bad = field(&w->p, w->end, f);
    if (!bad && f->type == GROUP_END) bad = "a group ends that never began";
    if (!bad && f->type == GROUP_BEGIN) {
      bad = skip_group(&w->p, w->end, f->number, w->depth);
      if (!bad) continue;
    }
    if (bad) fe_wire_fail(w, at, TN_EINPUT, "%s", bad);
    return true;
  }
  return false;
}

static void IR_NORETURN wrong_type(const fe_wire *w, const fe_field *f, const char *wanted) {
  fe_wire_fail(w, f->at, TN_EINPUT, "field %u is no %s (wire type %d)", f->number, wanted, f->type);
}

int64_t fe_wire_int64(const fe_wire *w, const fe_field *f) {
  if (f->type != FE_WIRE_VARINT) wrong_type(w, f, "integer");
  return (int64_t)f->value;
}

int32_t fe_wire_int32(const fe_wire *w, const fe_field *f) { return (int32_t)(uint32_t)fe_wire_int64(w, f); }

float fe_wire_float(const fe_wire *w, const fe_field *f) {
  if (f->type != FE_WIRE_I32) wrong_type(w, f, "float");
  uint32_t bits = (uint32_t)f->value;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

void fe_wire_bytes(const fe_wire *w, const fe_field *f, const uint8_t **data, size_t *n) {
  if (f->type != FE_WIRE_LEN) wrong_type(w, f, "string");
  *data = f->data;
  *n = f->n;
}

const char *fe_wire_string(const fe_wire *w, const fe_field *f) {
  if (f->type != FE_WIRE_LEN) wrong_type(w, f, "string");
  if (f->n == 0) return ir_intern(w->ctx, "");
  if (memchr(f->data, 0, f->n)) fe_wire_fail(w, f->at, TN_EINPUT, "a name holds a zero byte");
  char small[256];
  if (f->n >= sizeof small) return ir_intern(w->ctx, ir_strndup(w->ctx, (const char *)f->data, f->n));
  memcpy(small, f->data, f->n);
  small[f->n] = 0;
  return ir_intern(w->ctx, small);
}

size_t fe_wire_count(const fe_wire *w, const fe_field *f, int elem) {
  if (f->type == elem) return 1;
  if (f->type != FE_WIRE_LEN) wrong_type(w, f, "list of numbers");
  if (elem != FE_WIRE_VARINT) {
    size_t size = elem == FE_WIRE_I32 ? 4 : 8;
    if (f->n % size) fe_wire_fail(w, f->at, TN_EINPUT, "a packed list of %zu bytes is no multiple of %zu", f->n, size);
    return f->n / size;
  }
  size_t count = 0;
  for (size_t i = 0; i < f->n; i++) count += !(f->data[i] & 128);
  if (f->n && f->data[f->n - 1] & 128) fe_wire_fail(w, f->at, TN_EINPUT, "a packed list ends inside a number");
  return count;
}

size_t fe_wire_get(const fe_wire *w, const fe_field *f, int elem, size_t width, void *out) {
  size_t count = fe_wire_count(w, f, elem);
  if (f->type == elem) { /* the low bytes of `value`: hosts are little-endian */
    memcpy(out, &f->value, width);
  } else if (elem != FE_WIRE_VARINT) {
    if (f->n) memcpy(out, f->data, f->n);
  } else {
    const uint8_t *p = f->data, *end = p + f->n;
    char *o = out;
    for (size_t i = 0; i < count; i++, o += width) {
      const uint8_t *at = p;
      uint64_t v;
      const char *bad = varint(&p, end, &v);
      if (bad) fe_wire_fail(w, at, TN_EINPUT, "%s", bad);
      memcpy(o, &v, width);
    }
  }
  return count;
}

/* ---- where a fault happened ---- */

/* The last string of that field number, read as far as the message is sound; "" if none. */
static const char *peek(const fe_wire *w, int number) {
  const uint8_t *p = w->begin, *data = NULL;
  size_t n = 0;
  fe_field f;
  /* bounded, so that a fault in a huge message is still told at once */
  for (int i = 0; number && i < 100000 && p < w->end; i++) {
    if (field(&p, w->end, &f) || f.type == GROUP_BEGIN || f.type == GROUP_END) break;
    if (f.number == (uint32_t)number && f.type == FE_WIRE_LEN) data = f.data, n = f.n;
  }
  return data ? fe_show(w->ctx, (const char *)data, n) : "";
}

/* The innermost `left` places that have a name, outermost first. */
static void put_place(ir_text *t, const fe_wire *w, int left) {
  if (!w) return;
  if (left == 0) {
    ir_put(t, ": ...");
    return;
  }
  put_place(t, w->outer, w->what ? left - 1 : left);
  if (!w->what) return;
  const char *name = peek(w, w->name_field), *kind = peek(w, w->kind_field);
  ir_put(t, ": %s", w->what);
  if (*name) ir_put(t, " '%s'", name);
  if (*kind) ir_put(t, " (%s)", kind);
}

const char *fe_wire_place(const fe_wire *w) {
  ir_text t = {.ctx = w->ctx};
  ir_put(&t, "%s", w->file);
  put_place(&t, w, 5); /* more would not fit a message */
  return ir_text_str(&t);
}

void fe_wire_fail(const fe_wire *w, const uint8_t *at, tn_status status, const char *fmt, ...) {
  char reason[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(reason, sizeof reason, fmt, ap);
  va_end(ap);
  ir_fail(w->ctx, status, "%s: %s (byte %zu)", fe_wire_place(w), reason, (size_t)((at ? at : w->p) - w->base));
}
