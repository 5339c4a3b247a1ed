/* learn.h — what the analytical model gets wrong about one kernel, learned from its trials.
 *
 * A Gaussian process over the tunables (Rasmussen and Williams, "Gaussian Processes for Machine Learning",
 * 2006, ch. 2): the logarithm of measured over predicted time is a sum of an effect of each tunable, of the
 * register tile, of the prediction itself, and of a rest that only near points share. So a dozen trials
 * already tell what a tunable does wherever it stands, and each point has an expectation and a doubt.
 * What was learned from the trials that an earlier call had, in this order, is kept: a batch more takes a millisecond
 * or two. */
#ifndef AT_LEARN_H
#define AT_LEARN_H
#include "autotune/space.h"

typedef struct at_learned at_learned; /* of one space, which may grow between calls */
/* n points of the space and what is to be added to the logarithm of their predicted time. *l is null at first, and the
 * caller's to free. False: out of memory. */
bool at_learn(at_learned **l, const at_space *s, int n, const int *point, const double *error);
/* What is to be added for a point, and the standard deviation of that. */
double at_learned_error(const at_learned *l, int point, double *doubt);
/* As if the point had been tried and had come out as expected: those near it are in less doubt. */
void at_learned_assume(at_learned *l, int point);
void at_learned_free(at_learned *l);
#endif
