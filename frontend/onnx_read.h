/* onnx_read.h — what onnx_model.c and onnx_tensor.c share. */
#ifndef FE_ONNX_READ_H
#define FE_ONNX_READ_H
#include "frontend/onnx_model.h"
#include "frontend/wire.h"

/* `user` of every reader of one file. */
typedef struct fe_onnx_source {
  const char *folder; /* of external data; null: none */
  const char **location; /* files of external data already mapped, with their maps */
  const fe_map **map;
  int n_location, n_map;
} fe_onnx_source;

enum { FE_TALLY = 32 }; /* field numbers below this are counted */

/* Counts the fields of a message by number, checking the whole message's framing, and goes
 * back to its start. */
void fe_onnx_tally(fe_wire *w, int count[FE_TALLY]);
/* Throws when a field that may stand only once stands twice. */
void fe_onnx_once(fe_wire *w, const int count[FE_TALLY], int field, const char *name);
void fe_onnx_read_tensor(fe_wire *w, fe_onnx_tensor *t);
fe_onnx_pair fe_onnx_read_pair(fe_wire *w);
#endif
