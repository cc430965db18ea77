"""Panels in one style, and the frame that all dashboards have in common."""

import json
from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import Component

__all__ = ("frame", "graph", "latency", "number", "query", "spread", "states")

P = TypeVar("P", timeseries.Panel, stat.Panel, heatmap.Panel, statetimeline.Panel)

TAG = "otel-perfopt"
METRICS = DataSourceRef(type_val="prometheus", uid="${metrics}")
SERVICES = (
    "perfopt_cache_requests_total|perfopt_pool_acquires_total|perfopt_batch_flushes_total"
    "|perfopt_operation_duration_seconds_count|perfopt_lazy_load_duration_seconds_count|perfopt_events_emitted_total"
)
QUANTILES = (0.5, 0.95, 0.99)


def query(expression: str, legend: str, *, exemplars: bool = False) -> prometheus.Dataquery:
    """Return a query over the time range."""
    return prometheus.Dataquery().datasource(METRICS).expr(expression).legend_format(legend).range().exemplar(exemplars)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: prometheus.Dataquery,
    empty: str,
    limits: Sequence[float] = (),
    stacked: bool = False,
    width: int = 8,
) -> timeseries.Panel:
    """Return lines over time.

    Args:
        title: its title.
        description: what it shows, and what to do about it.
        unit: the unit of its values.
        queries: its queries.
        empty: what it says instead of an empty graph.
        limits: from where on a value is worrying, and from where on it is bad.
        stacked: whether the lines stand on each other.
        width: columns of 24.
    """
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.TABLE).placement(options.LegendPlacement.BOTTOM)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(METRICS)
        .unit(unit)
        .min(0)
        .no_value(empty)
        .height(8)
        .span(width)
        .thresholds(_thresholds(limits))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .fill_opacity(30 if stacked else 8)
        .show_points(options.VisibilityMode.AUTO)
        .span_nulls(span_nulls=False)
        .legend(legend.show_legend(show_legend=True).calcs(["mean", "max", "lastNotNull"]))
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
    )
    if unit == "percentunit":
        panel.axis_soft_max(max(limits, default=1))  # a few errors in a hundred are seen, and so is more than a whole
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    return _with(panel, queries)


def latency(
    title: str, description: str, component: Component, metric: str, *conditions: str, empty: str, span: str = "", width: int = 8
) -> timeseries.Panel:
    """Return the median, the 95th and the 99th percentile of a histogram, with exemplars.

    Args:
        title: its title.
        description: what it shows, and what to do about it.
        component: what it is about.
        metric: the histogram, without its suffix.
        conditions: which of its series.
        empty: what it says instead of an empty graph.
        span: the name of the spans that it leads to, with the labels of the series; none by default.
        width: columns of 24.
    """
    queries = [
        query(component.quantile(quantile, metric, *conditions), f"p{quantile * 100:g} {component.legend}", exemplars=True)
        for quantile in QUANTILES
    ]
    panel = graph(title, description, "s", *queries, empty=empty, width=width)
    return panel.data_links([_traces(span)]) if span else panel


def number(
    title: str, description: str, unit: str, expression: str, *, empty: str, limits: Sequence[float] = (), width: int = 4
) -> stat.Panel:
    """Return one figure with its course."""
    calculation = common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)
    color = FieldColorModeId.THRESHOLDS if limits else FieldColorModeId.FIXED
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(METRICS)
        .unit(unit)
        .no_value(empty)
        .height(4)
        .span(width)
        .thresholds(_thresholds(limits))
        .color_scheme(dashboard.FieldColor().mode(color).fixed_color("blue"))
        .graph_mode(options.BigValueGraphMode.AREA)
        .color_mode(options.BigValueColorMode.VALUE)
        .reduce_options(calculation)
    )
    return _with(panel, [query(expression, title)])


def spread(
    title: str, description: str, unit: str, component: Component, metric: str, *, empty: str, width: int = 12
) -> heatmap.Panel:
    """Return how a histogram's values were spread at each time."""
    chosen = f"sum by (le) (increase({component.select(f'{metric}_bucket')}[$__rate_interval]))"
    buckets = query(chosen, "{{le}}", exemplars=unit == "s").format(PromQueryFormat.HEATMAP)
    panel = (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(METRICS)
        .unit("short")
        .no_value(empty)
        .height(8)
        .span(width)
        .calculate(calculate=False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(32).fill("blue").exponent(0.5))
        .cell_gap(1)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .mode(options.TooltipDisplayMode.SINGLE)
        .exemplars_color("rgba(255,120,10,0.9)")
        .show_legend()
    )
    return _with(panel, [buckets])


def states(title: str, description: str, expression: str, legend: str, *, empty: str, width: int = 12) -> statetimeline.Panel:
    """Return when something was closed (0) and when it was open (1)."""
    closed, opened = ValueMappingResult(text="closed", color="green"), ValueMappingResult(text="open", color="red")
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(METRICS)
        .unit("none")
        .no_value(empty)
        .height(8)
        .span(width)
        .mappings([ValueMap(options={"0": closed, "1": opened})])
        .thresholds(_thresholds([1, 1]))
        .show_value(options.VisibilityMode.AUTO)
        .row_height(0.8)
        .legend(common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).placement(options.LegendPlacement.BOTTOM))
    )
    return _with(panel, [query(expression, legend)])


def frame(title: str, uid: str, description: str, component: Component | None, metric: str) -> dashboard.Dashboard:
    """Return a dashboard without panels.

    Args:
        title: its title.
        uid: its address.
        description: what it is for.
        component: what can be chosen.
        metric: what every one of these has.
    """
    board = (
        dashboard.Dashboard(f"otel-perfopt / {title}")
        .uid(f"otel-perfopt-{uid}")
        .description(description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("otel-perfopt")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(keep_time=True)
            .include_vars(include_vars=True)
        )
        .with_variable(_source("metrics", "Metrics", "prometheus", "The Prometheus that has the metrics."))
        .with_variable(_source("traces", "Traces", "jaeger", "The Jaeger that links from latencies lead to."))
        .with_variable(
            _choice("service", "Service", f'label_values({{__name__=~"{SERVICES}"}}, job)', "Services that use otel-perfopt.")
        )
    )
    if component and component.variable:
        values = f'label_values({metric}{{job=~"$service"}}, {component.label})'
        label = component.variable.capitalize()
        board.with_variable(_choice(component.variable, label, values, f"{label} by its name in the code."))
    return board


def _source(name: str, label: str, kind: str, description: str) -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(name).label(label).description(description).type(kind)


def _choice(name: str, label: str, values: str, description: str) -> dashboard.QueryVariable:
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(METRICS)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
        .current(everything)
    )


def _traces(span: str) -> dashboard.DashboardLink:
    search = {
        "refId": "A",
        "datasource": {"type": "jaeger", "uid": "${traces}"},
        "queryType": "search",
        "service": "${__field.labels.job}",
        "operation": span,
    }
    times = {"from": "${__from}", "to": "${__to}"}
    panes = {"perfopt": {"datasource": "${traces}", "queries": [search], "range": times}}
    link = (
        dashboard.DashboardLink("Traces of ${__field.displayName}").type(DashboardLinkType.LINK).target_blank(target_blank=True)
    )
    return link.url(f"/explore?schemaVersion=1&panes={json.dumps(panes, separators=(',', ':'))}")


def _thresholds(limits: Sequence[float]) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=limit, color=color) for limit, color in zip(limits, ("orange", "red"), strict=False)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(color="green"), *steps])


def _with(panel: P, queries: Sequence[prometheus.Dataquery]) -> P:
    for letter, found in zip("ABC", queries, strict=False):
        panel.with_target(found.ref_id(letter))
    return panel
