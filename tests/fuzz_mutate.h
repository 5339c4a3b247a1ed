/* fuzz_mutate.h — mutations that keep an ONNX file a protobuf message, so that they reach what lies
 * behind the reader: other operators, attributes, types, shapes, small tensors, wires.
 *
 * The bytes become a tree by a table of ONNX's messages; one to four places are changed; the tree is
 * written again with right lengths. Same bytes and seed: same result.
 */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H
#include "lower/build.h"
#include <string.h>

typedef enum fm_type { /* of a message, or what a string is */
  FM_LEAF, FM_MODEL, FM_OPSET, FM_GRAPH, FM_NODE, FM_ATTR, FM_TENSOR, FM_VALUE, FM_TYPE, FM_TTYPE, FM_SHAPE, FM_DIM, FM_FUNC,
  FM_NAME, FM_OP, FM_ATTR_NAME, FM_TEXT
} fm_type;

static const struct {
  uint8_t parent, field, child;
} fm_schema[] = {
    {FM_MODEL, 7, FM_GRAPH}, {FM_MODEL, 8, FM_OPSET}, {FM_MODEL, 25, FM_FUNC}, {FM_GRAPH, 1, FM_NODE}, {FM_GRAPH, 5, FM_TENSOR},
    {FM_GRAPH, 11, FM_VALUE}, {FM_GRAPH, 12, FM_VALUE}, {FM_GRAPH, 13, FM_VALUE}, {FM_NODE, 1, FM_NAME}, {FM_NODE, 2, FM_NAME},
    {FM_NODE, 4, FM_OP}, {FM_NODE, 5, FM_ATTR}, {FM_ATTR, 1, FM_ATTR_NAME}, {FM_ATTR, 4, FM_TEXT}, {FM_ATTR, 5, FM_TENSOR},
    {FM_ATTR, 6, FM_GRAPH}, {FM_TENSOR, 8, FM_NAME}, {FM_VALUE, 1, FM_NAME}, {FM_VALUE, 2, FM_TYPE}, {FM_TYPE, 1, FM_TTYPE},
    {FM_TTYPE, 2, FM_SHAPE}, {FM_SHAPE, 1, FM_DIM}, {FM_DIM, 2, FM_TEXT}, {FM_FUNC, 1, FM_OP}, {FM_FUNC, 4, FM_NAME},
    {FM_FUNC, 5, FM_NAME}, {FM_FUNC, 7, FM_NODE}, {FM_FUNC, 9, FM_OPSET},
};

typedef struct fm_field fm_field;
struct fm_field {
  uint32_t number;
  uint8_t wire; /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
  uint8_t type;
  bool message; /* kids count, not bytes */
  uint64_t v;
  const uint8_t *bytes;
  size_t n;
  fm_field *kids, *next;
};

typedef struct fm {
  char *room; /* everything lives here and goes with it */
  size_t used, cap;
  uint64_t rng;
  bool full;
  fm_field *all[1 << 14]; /* every field, for picking */
  int nall;
} fm;

static uint64_t fm_rand(fm *m) {
  uint64_t z = (m->rng += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static uint32_t fm_below(fm *m, uint32_t n) { return n ? (uint32_t)(fm_rand(m) % n) : 0; }

static void *fm_room(fm *m, size_t n) {
  n = (n + 15) & ~(size_t)15;
  if (n > m->cap - m->used) {
    m->full = true;
    return NULL;
  }
  void *p = m->room + m->used;
  m->used += n;
  return memset(p, 0, n);
}

static bool fm_varint(const uint8_t *p, size_t n, size_t *at, uint64_t *v) {
  *v = 0;
  for (int shift = 0; *at < n && shift < 64; shift += 7) {
    uint8_t b = p[(*at)++];
    *v |= (uint64_t)(b & 0x7f) << shift;
    if (!(b & 0x80)) return true;
  }
  return false;
}

/* The fields of a message; false when the bytes are none. */
static bool fm_read(fm *m, fm_type type, const uint8_t *p, size_t n, fm_field **out, int depth) {
  *out = NULL;
  fm_field **end = out;
  if (depth > 24) return false;
  for (size_t at = 0; at < n;) {
    uint64_t key, v = 0;
    if (!fm_varint(p, n, &at, &key)) return false;
    fm_field *f = fm_room(m, sizeof *f);
    if (!f) return false;
    f->number = (uint32_t)(key >> 3);
    f->wire = key & 7;
    if (f->wire == 0 || f->wire == 2) {
      if (!fm_varint(p, n, &at, &v)) return false;
    }
    size_t size = f->wire == 0 ? 0 : f->wire == 1 ? 8 : f->wire == 5 ? 4 : f->wire == 2 ? (size_t)v : n + 1;
    if (size > n - at) return false;
    f->v = v;
    f->bytes = p + at;
    f->n = size;
    at += size;
    for (int i = 0; i < IR_COUNT(fm_schema); i++)
      if (fm_schema[i].parent == type && fm_schema[i].field == f->number && f->wire == 2) f->type = fm_schema[i].child;
    if (f->type >= FM_MODEL && f->type <= FM_FUNC) f->message = fm_read(m, (fm_type)f->type, f->bytes, f->n, &f->kids, depth + 1);
    *end = f;
    end = &f->next;
  }
  return true;
}

static size_t fm_varint_size(uint64_t v) {
  size_t n = 1;
  for (; v >= 0x80; v >>= 7) n++;
  return n;
}

static size_t fm_size(fm_field *f) { /* of the fields in a list; lengths are noted in v */
  size_t n = 0;
  for (; f; f = f->next) {
    if (f->message) f->n = fm_size(f->kids);
    if (f->wire == 2) f->v = f->n;
    n += fm_varint_size((uint64_t)f->number << 3 | f->wire) + (f->wire == 0 || f->wire == 2 ? fm_varint_size(f->v) : 0) + f->n;
  }
  return n;
}

static uint8_t *fm_put_varint(uint8_t *p, uint64_t v) {
  for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
  *p++ = (uint8_t)v;
  return p;
}

static uint8_t *fm_write(const fm_field *f, uint8_t *p) {
  for (; f; f = f->next) {
    p = fm_put_varint(p, (uint64_t)f->number << 3 | f->wire);
    if (f->wire == 0 || f->wire == 2) p = fm_put_varint(p, f->v);
    if (f->message) p = fm_write(f->kids, p);
    else if (f->n) {
      memcpy(p, f->bytes, f->n);
      p += f->n;
    }
  }
  return p;
}

static void fm_list(fm *m, fm_field *f) {
  for (; f; f = f->next) {
    if (m->nall < IR_COUNT(m->all)) m->all[m->nall++] = f;
    if (f->message) fm_list(m, f->kids);
  }
}

/* A field of that type (FM_LEAF: any), drawn at random; null if there is none. */
static fm_field *fm_pick(fm *m, fm_type type) {
  fm_field *found = NULL;
  uint32_t seen = 0;
  for (int i = 0; i < m->nall; i++)
    if ((type == FM_LEAF || m->all[i]->type == type) && fm_below(m, ++seen) == 0) found = m->all[i];
  return found;
}

static fm_field *fm_kid(fm_field *f, uint32_t number) {
  for (fm_field *k = f ? f->kids : NULL; k; k = k->next)
    if (k->number == number) return k;
  return NULL;
}

static fm_field *fm_add(fm *m, fm_field *parent, uint32_t number, uint8_t wire) {
  fm_field *f = fm_room(m, sizeof *f);
  if (!f || !parent->message) return NULL;
  f->number = number;
  f->wire = wire;
  f->bytes = (const uint8_t *)"";
  fm_field **end = &parent->kids;
  while (*end) end = &(*end)->next;
  return *end = f;
}

static void fm_set_text(fm *m, fm_field *f, const char *s) {
  f->n = strlen(s);
  uint8_t *p = fm_room(m, f->n + 1);
  if (!p) return;
  memcpy(p, s, f->n);
  f->bytes = p;
  f->message = false;
}

static int64_t fm_number(fm *m) {
  static const int64_t odd[] = {INT64_MAX, INT64_MIN, INT64_MIN + 1, INT32_MAX, INT32_MIN, 1ll << 31, 1ll << 32, 1ll << 40, 1ll << 62, 65536, 100000, 255, 256, 1000};
  switch (fm_below(m, 8)) {
  case 0: return odd[fm_below(m, IR_COUNT(odd))];
  case 1: return -(int64_t)fm_below(m, 6);
  case 2: return (int64_t)fm_below(m, 64);
  default: return (int64_t)fm_below(m, 6);
  }
}

/* An operator, mostly one that takes `nin` inputs. */
static const ir_op *fm_op(fm *m, int nin) {
  const ir_op *const tables[] = {
      lw_ops_elementwise, lw_ops_reduce, lw_ops_softmax, lw_ops_norm, lw_ops_movement, lw_ops_rearrange, lw_ops_index, lw_ops_scatter,
      lw_ops_sort, lw_ops_image, lw_ops_resize, lw_ops_generate, lw_ops_signal, lw_ops_matmul, lw_ops_einsum, lw_ops_conv, lw_ops_pool,
      lw_ops_recurrent, lw_ops_quant, lw_ops_attention, lw_ops_loss, lw_ops_list};
  const ir_op *found = NULL;
  uint32_t seen = 0;
  bool any = nin < 0 || fm_below(m, 8) == 0;
  for (int t = 0; t < IR_COUNT(tables); t++)
    for (const ir_op *op = tables[t]; op->name; op++)
      if ((!op->domain || !*op->domain) && (any || (op->min_in <= nin && (op->max_in < 0 || nin <= op->max_in))) && fm_below(m, ++seen) == 0) found = op;
  return found;
}

/* The node becomes another operator, without attributes. */
static void fm_operator(fm *m, fm_field *node) {
  fm_field *name = fm_kid(node, 4), **at = &node->kids;
  int nin = 0;
  for (fm_field *k = node->kids; k; k = k->next) nin += k->number == 1;
  const ir_op *op = fm_op(m, nin);
  if (!name || !op) return;
  fm_set_text(m, name, op->name);
  while (*at)
    if ((*at)->number == 5) *at = (*at)->next;
    else at = &(*at)->next;
}

/* A tensor gets another type, other dims and contents that fit them. */
static void fm_tensor(fm *m, fm_field *t) {
  static const uint8_t size_of[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8};
  static const uint8_t usual[] = {7, 7, 7, 1, 1, 6, 9, 3, 11, 10, 2, 5, 12, 13};
  fm_field *type = fm_kid(t, 2);
  uint64_t elem = type && type->wire == 0 && type->v < IR_COUNT(size_of) && size_of[type->v] ? type->v : 7;
  if (fm_below(m, 4) == 0) elem = usual[fm_below(m, IR_COUNT(usual))];
  fm_field **end = &t->kids; /* all but the name goes */
  while (*end)
    if ((*end)->number == 8) end = &(*end)->next;
    else *end = (*end)->next;
  if ((type = fm_add(m, t, 2, 0))) type->v = elem;
  size_t count = 1;
  for (uint32_t rank = fm_below(m, 8) ? fm_below(m, 3) : fm_below(m, 7); rank > 0; rank--) {
    fm_field *d = fm_add(m, t, 1, 0);
    if (d) count *= (size_t)(d->v = fm_below(m, 5));
  }
  if (count > 4096) return;
  uint8_t *bytes = fm_room(m, count * size_of[elem] + 1);
  fm_field *raw = fm_add(m, t, 9, 2);
  if (!raw || !bytes) return;
  for (size_t i = 0; i < count; i++) {
    int64_t v = fm_number(m);
    float f = (float)v * 0.5f;
    double d = (double)v * 0.5;
    memcpy(bytes + i * size_of[elem], elem == 1 ? (void *)&f : elem == 11 ? (void *)&d : (void *)&v, size_of[elem]);
  }
  raw->bytes = bytes;
  raw->n = count * size_of[elem];
}

/* An attribute that the node's operator knows (mostly), with a value of its kind (mostly). */
static void fm_attribute(fm *m, fm_field *node) {
  fm_field *op = fm_kid(node, 4);
  char name[64] = "axis";
  const ir_op *row = NULL;
  if (op && op->n < sizeof name) {
    memcpy(name, op->bytes, op->n);
    name[op->n] = 0;
    row = ir_op_find("", name);
  }
  if (!row || fm_below(m, 16) == 0) row = fm_op(m, -1);
  char kind = 'i';
  uint32_t seen = 0;
  strcpy(name, "axis");
  for (const char *s = row->attrs ? row->attrs : ""; *s;) { /* "axis:i keepdims:i ..." */
    size_t n = strcspn(s, ":");
    if (!s[n]) break;
    if (fm_below(m, ++seen) == 0 && n < sizeof name) {
      memcpy(name, s, n);
      name[n] = 0;
      kind = s[n + 1];
    }
    s += n;
    s += strcspn(s, " ");
    s += strspn(s, " ");
  }
  fm_field *a = fm_room(m, sizeof *a), **at = &node->kids, *k;
  if (!a) return;
  while (*at) /* in place of one of that name */
    if ((*at)->number == 5 && (k = fm_kid(*at, 1)) && k->n == strlen(name) && memcmp(k->bytes, name, k->n) == 0) *at = (*at)->next;
    else at = &(*at)->next;
  *at = a;
  *a = (fm_field){.number = 5, .wire = 2, .type = FM_ATTR, .message = true};
  if ((k = fm_add(m, a, 1, 2))) fm_set_text(m, k, name);
  if (fm_below(m, 16) == 0) kind = "ifsIFt"[fm_below(m, 6)];
  static const char *const words[] = {"linear", "nearest", "cubic", "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "reflect", "edge", "wrap", "constant",
                                      "add", "mul", "max", "min", "none", "sum", "mean", "floor", "ceil", "align_corners", "asymmetric", "half_pixel",
                                      "ij,jk->ik", "bij,bjk", "i->", "...i,...i", "DCR", "CRD", "tanh", "LEFT", "RIGHT", "", "forward", "bidirectional", "reverse", "Sigmoid"};
  uint64_t type = 2;
  float f = (float)fm_number(m) * 0.25f;
  uint8_t *four;
  switch (kind) {
  case 'f':
  case 'F':
    type = kind == 'f' ? 1 : 6;
    for (uint32_t i = kind == 'f' ? 1 : fm_below(m, 5); i > 0; i--)
      if ((k = fm_add(m, a, kind == 'f' ? 2 : 7, 5)) && (four = fm_room(m, 4))) {
        memcpy(four, &f, 4);
        k->bytes = four;
        k->n = 4;
      }
    break;
  case 's':
    type = 3;
    if ((k = fm_add(m, a, 4, 2))) fm_set_text(m, k, words[fm_below(m, IR_COUNT(words))]);
    break;
  case 'I':
    type = 7;
    for (uint32_t i = fm_below(m, 7); i > 0; i--)
      if ((k = fm_add(m, a, 8, 0))) k->v = (uint64_t)fm_number(m);
    break;
  case 't':
    type = 4;
    if ((k = fm_add(m, a, 5, 2))) {
      k->type = FM_TENSOR;
      k->message = true;
      fm_tensor(m, k);
    }
    break;
  default:
    if ((k = fm_add(m, a, 3, 0))) k->v = (uint64_t)fm_number(m);
  }
  if ((k = fm_add(m, a, 20, 0))) k->v = type;
}

static void fm_once(fm *m, fm_field *root) {
  m->nall = 0;
  fm_list(m, root->kids);
  fm_field *f, *g;
  switch (fm_below(m, 16)) {
  case 0: /* another operator */
  case 1:
    if ((f = fm_pick(m, FM_NODE)) && f->message) fm_operator(m, f);
    break;
  case 2:
  case 3:
  case 4:
    if ((f = fm_pick(m, FM_NODE)) && f->message) fm_attribute(m, f);
    break;
  case 5:
  case 6:
    if ((f = fm_pick(m, FM_TENSOR)) && f->message) fm_tensor(m, f);
    break;
  case 7: /* a wire elsewhere */
    f = fm_pick(m, FM_NAME);
    g = fm_pick(m, FM_NAME);
    if (f && g) f->bytes = g->bytes, f->n = g->n;
    break;
  case 8: /* one more input, or an omitted one */
    f = fm_pick(m, FM_NODE);
    g = fm_pick(m, FM_NAME);
    if (f && g && (f = fm_add(m, f, 1, 2)) && fm_below(m, 3)) f->bytes = g->bytes, f->n = g->n;
    break;
  case 9: /* a size of an input */
    if ((f = fm_pick(m, FM_DIM)) && f->message) {
      f->kids = NULL;
      if (fm_below(m, 5) == 0) {
        if ((g = fm_add(m, f, 2, 2))) fm_set_text(m, g, "N");
      } else if ((g = fm_add(m, f, 1, 0))) g->v = (uint64_t)fm_number(m);
    }
    break;
  case 10: /* an axis more, or none at all */
    if ((f = fm_pick(m, FM_SHAPE)) && f->message && fm_below(m, 6) == 0) f->kids = NULL;
    else if (f && f->message && (g = fm_add(m, f, 1, 2))) {
      g->type = FM_DIM;
      g->message = true;
      if ((g = fm_add(m, g, 1, 0))) g->v = 1 + fm_below(m, 4);
    }
    break;
  case 11: /* a type */
    if ((f = fm_pick(m, FM_TTYPE)) && (g = fm_kid(f, 1))) g->v = 1 + fm_below(m, 17);
    break;
  case 12: /* an opset */
    if ((f = fm_pick(m, FM_OPSET)) && (g = fm_kid(f, 2))) g->v = fm_below(m, 28);
    break;
  case 13: /* something away */
    if ((f = fm_pick(m, FM_LEAF)) && f->next) *f = *f->next;
    break;
  case 14: /* something twice */
    if ((f = fm_pick(m, FM_LEAF)) && (g = fm_room(m, sizeof *g))) {
      *g = *f;
      f->next = g;
    }
    break;
  default: /* any number */
    for (int tries = 0; tries < 8; tries++)
      if ((f = fm_pick(m, FM_LEAF)) && f->wire == 0) {
        f->v = (uint64_t)fm_number(m);
        break;
      }
  }
}

/* Mutates in place; 0 when the bytes are no message. */
static size_t fm_mutate(uint8_t *data, size_t n, size_t max, uint64_t seed) {
  static fm m;
  m.cap = 16 * n + (1 << 20);
  m.room = malloc(m.cap);
  m.used = 0;
  m.full = false;
  m.rng = seed;
  uint8_t *out = NULL;
  size_t size = 0;
  fm_field root = {.type = FM_MODEL, .message = true};
  if (m.room && fm_read(&m, FM_MODEL, data, n, &root.kids, 0)) {
    for (uint32_t i = 1 + fm_below(&m, 4); i > 0; i--) fm_once(&m, &root);
    size = fm_size(root.kids);
    if (!m.full && size <= max && (out = malloc(size + 1))) {
      fm_write(root.kids, out);
      memcpy(data, out, size);
    } else size = 0;
  }
  free(out);
  free(m.room);
  return size;
}
#endif
