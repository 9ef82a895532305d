// OpenTelemetry's agent for Go programs beside which the bench measures ours: only its probes of HTTP servers.
//
// Its own program loads all its probes or none, and some of them write into the program that they watch, which a kernel
// under lockdown refuses. Where spans go is told by the variables of the OpenTelemetry SDK.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"

	"go.opentelemetry.io/auto"
	"go.opentelemetry.io/auto/pipeline"
	"go.opentelemetry.io/auto/pipeline/otelsdk"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// httpServers turns everything else off.
type httpServers struct{}

func (httpServers) InitialConfig(context.Context) auto.InstrumentationConfig {
	on := true
	server := auto.InstrumentationLibraryID{InstrumentedPkg: "net/http", SpanKind: trace.SpanKindServer}
	return auto.InstrumentationConfig{
		InstrumentationLibraryConfigs: map[auto.InstrumentationLibraryID]auto.InstrumentationLibrary{
			server: {TracesEnabled: &on},
		},
		DefaultTracesDisabled: true,
	}
}

func (httpServers) Watch() <-chan auto.InstrumentationConfig {
	never := make(chan auto.InstrumentationConfig)
	close(never)
	return never
}

func (httpServers) Shutdown(context.Context) error { return nil }

// counted counts the spans that were taken.
type counted struct {
	sdk.SpanExporter
	spans atomic.Int64
}

func (c *counted) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.spans.Add(int64(len(spans)))
	}
	return err
}

// cpu is what all threads took so far.
func cpu() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return (usage.Utime.Nano() + usage.Stime.Nano()) / 1000
}

// Says "watching" when its probes are in their places. At SIGTERM, how many spans were taken, and the microseconds of CPU
// since then.
func main() {
	if len(os.Args) != 2 {
		log.Fatal("one argument: the process to watch")
	}
	pid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	otlp, err := otlptracehttp.New(ctx)
	if err != nil {
		log.Fatal(err)
	}
	exporter := &counted{SpanExporter: otlp}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	handler, err := otelsdk.NewTraceHandler(ctx, otelsdk.WithTraceExporter(exporter), otelsdk.WithLogger(logger))
	if err != nil {
		log.Fatal(err)
	}
	agent, err := auto.NewInstrumentation(
		ctx,
		auto.WithPID(pid),
		auto.WithLogger(logger),
		auto.WithHandler(&pipeline.Handler{TraceHandler: handler}),
		auto.WithConfigProvider(httpServers{}),
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := agent.Load(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("watching")
	before := cpu()
	if err := agent.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// What waits for its batch goes out first; ctx is over.
	if err := handler.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(exporter.spans.Load(), cpu()-before)
}
