/* learn.h — what the analytical model gets wrong about one kernel, learned from its trials.
 *
 * A Gaussian process over the tunables (Rasmussen and Williams, "Gaussian Processes for Machine Learning",
 * 2006, ch. 2): the logarithm of measured over predicted time is a sum of an effect of each tunable, of the
 * register tile, of the prediction itself, and of a rest that only near points share. So a dozen trials
 * already tell what a tunable does wherever it stands, and each point has an expectation and a doubt.
 * Learning from 192 trials over 1,200 points takes about 20 ms, so it is done anew for each batch. */
#ifndef AT_LEARN_H
#define AT_LEARN_H
#include "autotune/space.h"

typedef struct at_learned at_learned;
/* n points of the space and what is to be added to the logarithm of their predicted time. Null: out of memory. */
at_learned *at_learn(const at_space *s, int n, const int *point, const double *error);
/* What is to be added for a point, and the standard deviation of that. */
double at_learned_error(const at_learned *l, int point, double *doubt);
/* As if the point had been tried and had come out as expected: those near it are in less doubt. */
void at_learned_assume(at_learned *l, int point);
void at_learned_free(at_learned *l);
#endif
