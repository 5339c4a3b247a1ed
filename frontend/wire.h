/* wire.h — a zero-copy reader of the protocol-buffer wire format.
 *
 *   message := (key value)*          key = varint(number << 3 | type)
 *   type 0: varint   1: 8 bytes   2: varint n, n bytes   3..4: a group   5: 4 bytes
 *
 * The bytes are untrusted. Every read is bounded by the message that holds it; a fault
 * throws TN_EINPUT with file, place (a chain such as: node 'conv1' (Conv): attribute 'pads')
 * and byte offset in the file. Unknown fields are skipped by the caller's default branch;
 * groups are skipped here.
 */
#ifndef FE_WIRE_H
#define FE_WIRE_H
#include "ir/ctx.h"

enum { FE_WIRE_VARINT = 0, FE_WIRE_I64 = 1, FE_WIRE_LEN = 2, FE_WIRE_I32 = 5 };
enum { FE_WIRE_DEPTH = 100 }; /* messages (and groups) inside one another */

/* One message being read. It lives on the stack of the function that reads it: `outer`
 * chains to the message around, so that a fault can tell where it happened. */
typedef struct fe_wire {
  tn_ctx *ctx;
  const char *file;
  void *user; /* the caller's; submessages inherit it */
  const uint8_t *base; /* first byte of the file, for offsets */
  const uint8_t *begin, *p, *end;
  const struct fe_wire *outer;
  const char *what; /* "node", "tensor", ...; null: not mentioned in messages */
  uint8_t name_field, kind_field; /* string fields shown as 'name' (kind); 0: none */
  int depth;
} fe_wire;

typedef struct fe_field {
  uint32_t number;
  uint8_t type;        /* FE_WIRE_* */
  const uint8_t *at;   /* where its key begins */
  uint64_t value;      /* varint, or the bits of a fixed field */
  const uint8_t *data; /* length-delimited: its bytes */
  size_t n;
} fe_field;

/* A reader over a whole file. */
fe_wire fe_wire_open(tn_ctx *ctx, const char *file, const void *data, size_t n, const char *what);
/* A reader over the submessage in `f` (throws if it is not length-delimited or too deep). */
fe_wire fe_wire_enter(const fe_wire *outer, const fe_field *f, const char *what, int name_field, int kind_field);
/* The next field; false at the end of the message. */
bool fe_wire_next(fe_wire *w, fe_field *f);
void fe_wire_rewind(fe_wire *w);

/* The value of a field of known type; throws when the wire type does not fit. */
int64_t fe_wire_int64(const fe_wire *w, const fe_field *f);
int32_t fe_wire_int32(const fe_wire *w, const fe_field *f); /* truncates, as the format says */
float fe_wire_float(const fe_wire *w, const fe_field *f);
/* A string: interned, zero-terminated. Throws on an embedded zero. */
const char *fe_wire_string(const fe_wire *w, const fe_field *f);
void fe_wire_bytes(const fe_wire *w, const fe_field *f, const uint8_t **data, size_t *n);

/* Repeated scalars, packed or not. `elem` is the wire type of one element. count: how many
 * elements the field holds; get: stores them at `out`, `width` bytes each, and returns how
 * many. A fixed field needs its own width (4 or 8); a varint is truncated to 1, 2, 4 or 8. */
size_t fe_wire_count(const fe_wire *w, const fe_field *f, int elem);
size_t fe_wire_get(const fe_wire *w, const fe_field *f, int elem, size_t width, void *out);

/* Where the reader is, in the arena: "model.onnx: node 'conv1' (Conv): attribute 'value'". */
const char *fe_wire_place(const fe_wire *w);
/* Throws with file, place and the offset of `at` (null: of the reader's position). */
void fe_wire_fail(const fe_wire *w, const uint8_t *at, tn_status status, const char *fmt, ...)
    IR_PRINTF(4, 5) IR_NORETURN;
#endif
