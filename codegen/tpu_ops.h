/* tpu_ops.h — one row per TPU instruction; included several times.
 *
 *   ROW(ENUM, mnemonic, unit, fields)
 *
 * unit    whose queue it waits in; SEQ instructions are done by the sequencer itself
 * fields  which group of fields it has (tpu_fields in tpu_isa.h); all others must be zero
 * What each does: the head of tpu_isa.h.
 */
ROW(NOP, "nop", SEQ, NONE)
/* control */
ROW(HALT, "halt", SEQ, NONE)
ROW(FENCE, "fence", SEQ, NONE)
ROW(BARRIER, "barrier", SEQ, NONE)
ROW(TAG, "tag", SEQ, CONTROL)
ROW(CONFIG, "config", SEQ, CONTROL)
ROW(STEP, "step", SEQ, CONTROL)
ROW(READ, "read", SEQ, CONTROL)
ROW(REPEAT, "repeat", SEQ, CONTROL)
ROW(JUMP, "jump", SEQ, CONTROL)
ROW(SYNC, "sync", SEQ, SYNC)
/* DMA */
ROW(HOST, "host", HOST, DMA)
ROW(LOAD, "load", LOAD, DMA)
ROW(STORE, "store", STORE, DMA)
ROW(LOAD_ROWS, "load.rows", LOAD, INDEXED)
ROW(STORE_ROWS, "store.rows", STORE, INDEXED)
/* weights and matrix */
ROW(WEIGHTS, "weights", WEIGHTS, WEIGHTS)
ROW(MATMUL, "matmul", MATRIX, WINDOW)
/* vector */
ROW(POOL, "pool", VECTOR, WINDOW)
ROW(ACT, "act", VECTOR, CHAIN)
ROW(VECTOR, "v", VECTOR, VECTOR)
ROW(GATHER, "gather", VECTOR, INDEXED)
ROW(SCATTER, "scatter", VECTOR, INDEXED)
