/* topology.h — SCALE-Sim's topology files: the layers of a network as rows of a CSV table.
 *
 *   Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,
 *   Conv1,      224,          224,         7,             7,            3,        64,         2,
 *
 *   Layer, M, N, K,
 *   GEMM_1, 128, 1024, 512,
 *
 * The first line that says something is the heading. A heading with columns named M, N and K marks the
 * GEMM form; else the first eight columns are those above, whatever they are called (files in the wild
 * call both sizes "IFMAP Width"), and these later ones are understood by name: a second stride, "Batch",
 * "Groups", "Sparsity" (N:M). Other columns are ignored. Padding is part of the sizes. A file without a
 * heading is of the convolution form.
 *
 * Commas separate, or tabs where the heading has no comma; a comma at the end, blanks, CRLF and a
 * byte order mark do not matter. '#' begins a comment. Lines that are blank, or hold nothing behind
 * a name (a title), are skipped.
 *
 * Depthwise: a convolution whose name contains "DP" stands for as many rows as it has channels, each of
 * one channel and all its filters, as in SCALE-Sim (`copies`). Sizes become a matrix product
 *   M = batch * ceil((H - R + stride) / stride) * ceil((W - S + stride) / stride)
 *   N = filters / groups,  K = R * S * channels / groups
 */
#ifndef FE_TOPOLOGY_H
#define FE_TOPOLOGY_H
#include "frontend/file.h"

typedef struct fe_conv_dims { /* of the convolution form */
  int64_t h, w, r, s, c, k, stride_h, stride_w, batch;
} fe_conv_dims;

typedef struct fe_topology_layer {
  const char *name;
  int line;           /* in the file, from 1 */
  int64_t M, N, K;    /* of one group, each from 1 to FE_TOPOLOGY_MOST */
  int64_t groups;     /* such products, one after another; 1 without groups */
  int64_t copies;     /* rows of the same sizes named "NAMEChannel_0", ...; 0: one row, NAME */
  fe_conv_dims conv;  /* h is 0 in the GEMM form; of a depthwise row c is 1 */
  int sparse_n, sparse_m; /* 1:1 unless given; nothing computes with it yet */
} fe_topology_layer;

#define FE_TOPOLOGY_MOST INT32_MAX      /* of M, N and K */
#define FE_TOPOLOGY_MACS ((int64_t)1 << 56) /* of M * N * K * groups * copies */

typedef struct fe_topology {
  const char *path;
  bool gemm;
  int n;
  fe_topology_layer *layers;
} fe_topology;

/* Throw TN_EINPUT with "file:line: column 'name': reason"; loading also as fe_map_file does. */
fe_topology *fe_topology_load(tn_ctx *ctx, const char *path);
/* The same from bytes; `path` is for messages. */
fe_topology *fe_topology_parse(tn_ctx *ctx, const char *bytes, size_t n, const char *path);
/* The name of row i of a layer, 0 <= i < max(copies, 1). */
const char *fe_topology_name(tn_ctx *ctx, const fe_topology_layer *l, int64_t i);
#endif
