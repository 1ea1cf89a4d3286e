// The marks that a panel may name; each module draws one of them into a host element, again and again.
import { draw as bars } from "./bars.js";
import { draw as columns } from "./columns.js";
import { draw as figures } from "./figures.js";
import { draw as funnel } from "./funnel.js";
import { draw as heat } from "./heat.js";
import { draw as series } from "./series.js";
import { draw as table } from "./table.js";

export const marks = { bars, columns, figures, funnel, heat, series, table };
