// What a search finds is sorted by these points: who asks for a word wants a tutorial first, then a room, then the reference.
var Scorer = {
  score: ([page, , , , points]) => points + (page.startsWith("tutorials/") ? 20 : page.startsWith("api/") ? -10 : 0),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
