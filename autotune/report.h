/* report.h — a store as one HTML page: what was tuned, how it went, what failed. */
#ifndef AT_REPORT_H
#define AT_REPORT_H
#include "autotune/store.h"

/* The whole page, no file beside it, no script. `pattern`: kernels whose name contains it; null: all.
 * `title` may be null. Lives in ctx. */
const char *at_report(tn_ctx *ctx, at_store *store, const char *pattern, const char *title);
#endif
