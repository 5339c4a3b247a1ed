/* learn.h — what the analytical model gets wrong about one kernel, learned from its trials.
 *
 * Gradient boosting of trees of depth 2 on squared errors (Friedman, "Greedy function
 * approximation", 2001), over the tunables and the prediction itself. Fitting a few hundred
 * trials takes a millisecond or two, so it is done anew for each batch. A few trials teach nothing. */
#ifndef AT_LEARN_H
#define AT_LEARN_H
#include "autotune/space.h"

typedef struct at_learned at_learned;
/* n points and what is to be added to the logarithm of their predicted time. In ctx. */
at_learned *at_learn(tn_ctx *ctx, int n, const at_point *const *points, const double *error);
double at_learned_error(const at_learned *l, const at_point *p);
#endif
